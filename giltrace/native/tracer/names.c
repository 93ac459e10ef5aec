/* Thread names as Python knows them.
 *
 * `threading.Thread.start` ends in the interpreter's call of pthread_create, made by the parent with the GIL held
 * and from ordinary C code: the one moment at which the Python API may be used and the Thread object (`self` of the
 * calling frame) is at hand. Others arrive there too: whoever holds the GIL without a current thread state (up to 3.11)
 * is told by the interpreter itself. Other frames are left alone, because asking for their locals keeps them alive, and
 * only the instance's own dict is read, so no Python code runs. Threads made by other means are named by the kernel's
 * name of them. */
#include "names.h"

#include "cost.h"
#include "file.h"
#include "guard.h"
#include "store.h"
#include "system.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>

typedef struct python_object PyObject;

static struct {
    void *(*current_state)(void);
    PyObject *(*get_globals)(void);
    PyObject *(*get_locals)(void);
    PyObject *(*get_dict)(PyObject *, void *);
    PyObject *(*dict_get)(PyObject *, const char *);
    const char *(*as_utf8)(PyObject *, ptrdiff_t *);
    PyObject *(*error_occurred)(void);
    void (*error_clear)(void);
    void (*decref)(PyObject *);
    bool complete;
} api;

enum { PENDING_MAX = 256, NAME_SIZE = 96, TRIES = 1000 };

/* Names of threads that were created and have not yet used the GIL; the oldest gives way when all are taken. */
static struct {
    pthread_t thread;
    bool used;
    char name[NAME_SIZE];
} pending[PENDING_MAX];
static unsigned pending_next, pending_count;
static pthread_mutex_t pending_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic int creating; /* threads that are about to say a name */

/* What the hook calls. */
int (*_Atomic names_next_create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) = pthread_create;

void names_resolve(const struct elf_object *python) {
    *(void **)&api.current_state = elf_symbol(python, "PyThreadState_GetUnchecked", NULL); /* from 3.13 on */
    if (api.current_state == NULL) {
        *(void **)&api.current_state = elf_symbol(python, "_PyThreadState_UncheckedGet", NULL);
    }
    *(void **)&api.get_globals = elf_symbol(python, "PyEval_GetGlobals", NULL);
    *(void **)&api.get_locals = elf_symbol(python, "PyEval_GetLocals", NULL);
    *(void **)&api.dict_get = elf_symbol(python, "PyDict_GetItemString", NULL);
    *(void **)&api.get_dict = elf_symbol(python, "PyObject_GenericGetDict", NULL);
    *(void **)&api.as_utf8 = elf_symbol(python, "PyUnicode_AsUTF8AndSize", NULL);
    *(void **)&api.error_occurred = elf_symbol(python, "PyErr_Occurred", NULL);
    *(void **)&api.error_clear = elf_symbol(python, "PyErr_Clear", NULL);
    *(void **)&api.decref = elf_symbol(python, "Py_DecRef", NULL);
    api.complete = api.current_state && api.get_globals && api.get_locals && api.get_dict && api.dict_get &&
                   api.as_utf8 && api.error_occurred && api.error_clear && api.decref;
}

void names_after_fork(void) {
    pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    pending_lock = fresh;
    memset(pending, 0, sizeof pending);
    pending_count = 0;
    atomic_store(&creating, 0);
}

/* Cut at a character's boundary, where the name does not fit. */
static void copy_utf8(char *out, size_t size, const char *text) {
    size_t length = strlen(text);
    if (length >= size) {
        length = size - 1;
        while (length > 0 && ((unsigned char)text[length] & 0xC0u) == 0x80u) {
            length--;
        }
    }
    memcpy(out, text, length);
    out[length] = 0;
}

/* A text of a dict, borrowed; NULL if it has none by that name. */
static const char *text_of(PyObject *dict, const char *name) {
    PyObject *value = dict == NULL ? NULL : api.dict_get(dict, name);
    const char *text = value == NULL ? NULL : api.as_utf8(value, NULL);
    if (text == NULL && api.error_occurred() != NULL) {
        api.error_clear();
    }
    return text;
}

/* The name of the Thread whose `start` is the calling frame; empty if it is not one. */
static void name_of_starting(char *out) {
    out[0] = 0;
    if (api.error_occurred() != NULL) {
        return;
    }
    const char *module = text_of(api.get_globals(), "__name__");
    if (module == NULL || strcmp(module, "threading") != 0) {
        return;
    }
    PyObject *locals = api.get_locals();
    PyObject *object = locals == NULL ? NULL : api.dict_get(locals, "self");
    PyObject *attributes = object == NULL ? NULL : api.get_dict(object, NULL);
    const char *name = text_of(attributes, "_name"); /* also clears what the calls before it may have raised */
    if (name != NULL) {
        copy_utf8(out, NAME_SIZE, name);
    }
    if (attributes != NULL) {
        api.decref(attributes);
    }
}

/* Remember the name of a thread until it uses the GIL. */
void names_announce(pthread_t thread, const char *name) {
    pthread_mutex_lock(&pending_lock);
    unsigned slot = pending_next++ % PENDING_MAX;
    pending_count += !pending[slot].used;
    pending[slot].thread = thread;
    pending[slot].used = true;
    copy_utf8(pending[slot].name, sizeof pending[slot].name, name);
    pthread_mutex_unlock(&pending_lock);
}

/* An interpreter that can do without a GIL: its functions may be called with a thread state alone. */
static _Atomic bool without_gil;

void names_start(bool free_threaded) {
    atomic_store_explicit(&without_gil, free_threaded, memory_order_release);
}

/* The GIL is held, in this recording, and with a thread state that is current. A thread that ran before the hooks were
 * there may come here first: `api` is looked at only by one that has met the recording, or its lack of a GIL. */
static bool may_use_api(const struct thread *thread) {
    bool held = thread->holds && thread->generation == guard_generation();
    return (held || atomic_load_explicit(&without_gil, memory_order_acquire)) && api.complete &&
           api.current_state() != NULL;
}

int names_hook_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg) {
    char name[NAME_SIZE] = {0};
    int saved_errno = errno;
    if (may_use_api(&self)) {
        uint64_t begin = cost_begin(&self);
        name_of_starting(name);
        cost_end(&self, begin);
    }
    errno = saved_errno;
    int named = name[0] != 0;
    atomic_fetch_add(&creating, named);
    int result = atomic_load_explicit(&names_next_create, memory_order_relaxed)(thread, attr, start, arg);
    if (result == 0 && named) {
        names_announce(*thread, name);
    }
    atomic_fetch_sub(&creating, named);
    return result;
}

/* The name that was announced for a thread; false if none was. */
static bool take_announced(pthread_t thread, char *out, size_t size) {
    bool found = false;
    pthread_mutex_lock(&pending_lock);
    unsigned left = pending_count; /* nearly always the newest is all that there is */
    for (unsigned back = 0; back < PENDING_MAX && left > 0; back++) {
        unsigned slot = (pending_next - 1 - back) % PENDING_MAX;
        left -= pending[slot].used;
        if (pending[slot].used && pthread_equal(pending[slot].thread, thread)) {
            pending[slot].used = false;
            pending_count--;
            if (!found) { /* older ones are of threads that ended without the GIL and left their address to this one */
                copy_utf8(out, size, pending[slot].name);
            }
            found = true;
        }
    }
    pthread_mutex_unlock(&pending_lock);
    return found;
}

/* Without a GIL a thread may come by before the one that starts it has said its name. */
static bool wait_for_name(pthread_t thread, char *out, size_t size) {
    for (int tries = 0; tries < TRIES; tries++) {
        bool last = atomic_load(&creating) == 0; /* whoever was at it has said by now what there is to say */
        if (take_announced(thread, out, size)) {
            return true;
        }
        if (last) {
            break;
        }
        sched_yield();
    }
    return false;
}

/* The name of the calling thread. Its parent held the GIL until the name was stored, so it is there by now; it is soon
 * where there is no GIL. */
void names_take(uint32_t tid, char *out, size_t size) {
    const struct gt_header *head = store_header();
    if (head != NULL && tid == __atomic_load_n(&head->pid, __ATOMIC_RELAXED)) {
        copy_utf8(out, size, "MainThread");
        return;
    }
    pthread_t me = pthread_self();
    bool waits = atomic_load_explicit(&without_gil, memory_order_relaxed) && !file_careful() && !file_confined();
    bool found = waits ? wait_for_name(me, out, size) : take_announced(me, out, size);
    if (!found && file_enter()) {
        char comm[32] = {0};
        if (file_careful()) { /* a filter may kill for the other call */
            file_read("/proc/thread-self/comm", comm, sizeof comm);
        } else {
            system_call(SYS_prctl, PR_GET_NAME, (long)comm, 0, 0, 0, 0);
        }
        file_leave();
        comm[strcspn(comm, "\n")] = 0;
        copy_utf8(out, size, comm);
    }
}
