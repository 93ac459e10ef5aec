/* From one reading of a GIL's state to the next: what must have happened in between, as events.
 *
 * What is between two readings is known to no more than that, so its events are spread over the gap. The GIL's own
 * counter of switches tells how many holders there were; those that no reading showed are sought among the threads that
 * waited before and do not any more. Whoever is not found is counted as missed. */
#include "observe.h"

#include <string.h>

enum { HIDDEN_MAX = 64, SETTLED_LOOKS = 3 };

/* Insert an event in order of time, behind those of the same time; returns its time, which is after all that is out. */
static uint64_t insert(struct observer *observer, uint64_t time, uint32_t thread, int32_t gil, enum gt_kind kind,
                       unsigned flags) {
    if (observer->pending_count == OBSERVE_PENDING) {
        observe_flush(observer, observer->pending[OBSERVE_PENDING / 2].time + 1);
    }
    if (time < observer->flushed) {
        time = observer->flushed;
    }
    uint32_t at = observer->pending_count++;
    for (; at > 0 && observer->pending[at - 1].time > time; at--) {
        observer->pending[at] = observer->pending[at - 1];
    }
    observer->pending[at] = (struct observe_event){time, thread, (uint16_t)gil, (uint8_t)kind, (uint8_t)flags};
    observer->threads[thread].seen = true;
    return time;
}

/* A thread's events stay in their order. */
static uint64_t emit(struct observer *observer, uint64_t time, int32_t thread, int32_t gil, enum gt_kind kind,
                     unsigned flags) {
    struct observed_thread *one = &observer->threads[thread];
    time = time > one->last ? time : one->last;
    one->last = insert(observer, time, (uint32_t)thread, gil, kind, flags);
    return one->last;
}

/* Hand over what is older than `before`; what Python has left no room for is lost. */
void observe_flush(struct observer *observer, uint64_t before) {
    uint32_t count = 0;
    uint64_t head = atomic_load_explicit(&observer->ring_head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&observer->ring_tail, memory_order_acquire);
    for (; count < observer->pending_count && observer->pending[count].time < before; count++) {
        if (head - tail == OBSERVE_RING) {
            observer->stats.lost++;
            continue;
        }
        observer->ring[head++ % OBSERVE_RING] = observer->pending[count];
    }
    atomic_store_explicit(&observer->ring_head, head, memory_order_release);
    if (count != 0) {
        observer->flushed = before;
        observer->pending_count -= count;
        memmove(observer->pending, observer->pending + count, observer->pending_count * sizeof *observer->pending);
    }
}

static void mark_forced(struct observer *observer, uint32_t thread, uint64_t time) {
    for (uint32_t i = observer->pending_count; i-- > 0;) {
        struct observe_event *event = &observer->pending[i];
        if (event->thread == thread && event->kind == GT_RELEASE && event->time == time) {
            event->flags = GT_FORCED;
            return;
        }
    }
}

static int32_t id_of(const struct observer *observer, const struct observed_gil *gil) {
    return (int32_t)(gil - observer->gils);
}

static void stop_waiting(struct observer *observer, uint32_t thread) {
    struct observed_thread *one = &observer->threads[thread];
    if (one->waits_for >= 0) {
        observer->gils[one->waits_for].waiting--;
        one->waits_for = -1;
    }
    one->elsewhere = 0;
}

/* The thread that waits for the GIL in the same timed wait since longest, -1 if none does. */
static int32_t longest_waiter(const struct observer *observer, const struct observed_gil *gil) {
    int32_t found = -1, id = id_of(observer, gil);
    uint32_t left = gil->waiting;
    for (uint32_t i = 0; i < observer->alive_count && left > 0; i++) {
        const struct observed_thread *one = &observer->threads[observer->alive[i]];
        if (one->waits_for == id) {
            left--;
            if (found < 0 || one->timed_since < observer->threads[found].timed_since) {
                found = (int32_t)observer->alive[i];
            }
        }
    }
    return found;
}

/* If the thread gave the GIL up a moment ago because it was asked to, and came straight back (the eval loop yielded,
 * and never stopped wanting the GIL): say so, and return the time of that release. Else 0. */
static uint64_t came_back(struct observer *observer, struct observed_gil *gil, uint32_t thread, uint64_t time) {
    struct observed_thread *one = &observer->threads[thread];
    int32_t id = id_of(observer, gil);
    bool forced = one->may_be_forced && one->released_gil == id && time - one->released <= OBSERVE_HOLDBACK_NS;
    one->may_be_forced = false;
    if (!forced) {
        return 0;
    }
    mark_forced(observer, thread, one->released);
    if (one->asker >= 0) {
        insert(observer, one->asked, (uint32_t)one->asker, id, GT_TIMEOUT, GT_SWITCH_REQUEST);
    }
    return one->released;
}

/* A thread was seen to wait, and was not known to before `time`; `gap` is the time since the reading before. */
static void starts_waiting(struct observer *observer, struct observed_gil *gil, uint32_t thread, uint64_t time,
                           uint64_t gap) {
    struct observed_thread *one = &observer->threads[thread];
    int32_t id = id_of(observer, gil);
    unsigned flags = gil->started ? 0 : GT_UNDER_WAY;
    uint64_t since = came_back(observer, gil, thread, time);
    if (since == 0) {
        since = time - gap / 2;
    }
    since = emit(observer, since, (int32_t)thread, id, GT_REQUEST, flags);
    one->waits_for = id;
    one->timed_since = since;
    one->elsewhere = 0;
    gil->waiting++;
}

static void released(struct observer *observer, struct observed_gil *gil, int32_t thread, uint64_t time, uint64_t gap) {
    time = emit(observer, time, thread, id_of(observer, gil), GT_RELEASE, 0);
    struct observed_thread *one = &observer->threads[thread];
    uint64_t interval = gil->last.interval_us * 1000;
    one->released = time;
    one->released_gil = (uint16_t)id_of(observer, gil);
    gil->released_by = thread;
    int32_t asker = longest_waiter(observer, gil);
    one->may_be_forced = asker >= 0 && time + gap >= gil->switched + interval;
    one->asker = -1;
    if (one->may_be_forced && !gil->asked) {
        uint64_t since = observer->threads[asker].timed_since;
        uint64_t due = (since > gil->switched ? since : gil->switched) + interval;
        one->asker = asker;
        one->asked = due < time ? due : time;
    }
}

static void acquired(struct observer *observer, struct observed_gil *gil, int32_t thread, uint64_t time,
                     bool switched) {
    struct observed_thread *one = &observer->threads[thread];
    int32_t id = id_of(observer, gil);
    uint64_t since = came_back(observer, gil, (uint32_t)thread, time);
    if (one->waits_for == id) {
        stop_waiting(observer, (uint32_t)thread);
    } else if (since != 0) {
        emit(observer, since, thread, id, GT_REQUEST, 0);
    } else if (switched && gil->quick > 0) {
        /* Some thread waited for less than a gap: most likely the one that has the GIL now. */
        gil->quick--;
        emit(observer, time - 1, thread, id, GT_REQUEST, 0);
    }
    emit(observer, time, thread, id, GT_ACQUIRE, 0);
    if (switched) {
        gil->switched = time;
        gil->asked = false;
    }
}

/* Holders between the two readings: threads that waited, and now do not. The new holder is known and not among them. */
static uint32_t find_hidden(struct observer *observer, struct observed_gil *gil, uint32_t still_waiting, uint64_t most,
                            int32_t holder, uint32_t *found) {
    uint32_t count = 0, maybe_count = 0, maybe[HIDDEN_MAX];
    int32_t id = id_of(observer, gil);
    uint32_t left = gil->waiting;
    most = most < HIDDEN_MAX ? most : HIDDEN_MAX;
    for (uint32_t i = 0; i < observer->alive_count && left > 0 && count < most; i++) {
        uint32_t thread = observer->alive[i];
        if (observer->threads[thread].waits_for != id) {
            continue;
        }
        left--;
        if ((int32_t)thread == holder) {
            continue;
        }
        int32_t other = -1;
        enum observe_look look = observe_look(observer, thread, &other);
        if (look == LOOK_BLOCKED || look == LOOK_ENDED || (look == LOOK_WAITS && other != id)) {
            found[count++] = thread;
        } else if (look == LOOK_RUNS && maybe_count < HIDDEN_MAX) {
            maybe[maybe_count++] = thread;
        }
    }
    /* One that runs may also be on its way from one timed wait to the next: then the condition still counts it. */
    uint32_t gone = gil->waiting - count;
    gone -= holder >= 0 && observer->threads[holder].waits_for == id;
    for (uint32_t i = 0; i < maybe_count && count < most && gone > still_waiting; i++, gone--) {
        found[count++] = maybe[i];
    }
    return count;
}

struct step {
    int32_t thread;
    bool acquires, switches;
};

/* The releases and acquires that lead from the last reading to this one, in order; returns how many. */
static uint32_t find_steps(struct observer *observer, struct observed_gil *gil, const struct gil_reading *now,
                           int32_t holder, uint32_t still_waiting, struct step *steps) {
    uint64_t switches = now->switches - gil->last.switches;
    uint32_t count = 0;
    if (gil->last.locked && (switches > 0 || !now->locked)) {
        steps[count++] = (struct step){gil->holder, false, false};
    }
    if (switches > 1) {
        uint32_t hidden[HIDDEN_MAX];
        uint32_t found = find_hidden(observer, gil, still_waiting, switches - 1, holder, hidden);
        observer->stats.switches_missed += switches - 1 - found;
        for (uint32_t i = 0; i < found; i++) {
            steps[count++] = (struct step){(int32_t)hidden[i], true, true};
            steps[count++] = (struct step){(int32_t)hidden[i], false, false};
        }
    }
    observer->stats.switches += switches;
    observer->stats.switches_missed += switches > 0 && holder < 0;
    if (switches > 0 || (!gil->last.locked && now->locked)) {
        steps[count++] = (struct step){holder, true, switches > 0};
    }
    if (switches > 0 && !now->locked) {
        steps[count++] = (struct step){holder, false, false};
    }
    return count;
}

static uint32_t count_waiting(const struct observer *observer, const struct gil_reading *now) {
    return observer->wrefs_at < 0 ? 0 : now->cond[observer->wrefs_at] >> 3;
}

/* How many timed waits began and ended between the readings: not those that go on, nor one of a thread that asked. */
static uint64_t unexplained(const struct observer *observer, const struct observed_gil *gil, uint64_t begun,
                            uint32_t waiting, const struct step *steps, uint32_t count, uint64_t time, uint64_t gap) {
    int64_t before = gil->waiting;
    for (uint32_t i = 0; i < count; i++) {
        before -= steps[i].acquires && steps[i].thread >= 0 &&
                  observer->threads[steps[i].thread].waits_for == id_of(observer, gil);
    }
    int64_t explained = waiting > before ? waiting - before : 0;
    explained += gil->waiting > 0 && time + gap >= gil->switched + gil->last.interval_us * 1000;
    return begun > (uint64_t)explained ? begun - (uint64_t)explained : 0;
}

/* Look for threads that wait and are not known to, until as many are known as the condition counts. */
static uint32_t find_waiters(struct observer *observer, struct observed_gil *gil, const struct gil_reading *now,
                             int32_t former, uint64_t time, uint64_t gap) {
    uint32_t found = 0, waiting = count_waiting(observer, now);
    for (uint32_t i = 0; i <= observer->alive_count && gil->waiting < waiting; i++) {
        /* The former holder first: as a rule it is the one. */
        if (i == 0 && former < 0) {
            continue;
        }
        uint32_t thread = i == 0 ? (uint32_t)former : observer->alive[i - 1];
        struct observed_thread *one = &observer->threads[thread];
        if (one->waits_for >= 0 || one->fd < 0 || ((int32_t)thread == gil->holder && now->locked)) {
            continue;
        }
        int32_t id = -1;
        if (observe_look(observer, thread, &id) == LOOK_WAITS && id == id_of(observer, gil)) {
            starts_waiting(observer, gil, thread, time, gap);
            found++;
        }
    }
    return found;
}

/* Timed waits began that no new waiter explains: some ran out and were begun again. */
static void timed_out(struct observer *observer, struct observed_gil *gil, uint64_t count, uint64_t time,
                      uint64_t gap) {
    uint64_t interval = gil->last.interval_us * 1000;
    for (; count > 0; count--) {
        int32_t thread = longest_waiter(observer, gil);
        if (thread < 0 || time + gap < observer->threads[thread].timed_since + interval) {
            break; /* not long enough: a waiter that was woken and came too late, or one that came and went */
        }
        struct observed_thread *one = &observer->threads[thread];
        uint64_t due = one->timed_since + interval;
        due = due < time - gap ? time - gap : due > time ? time : due;
        bool asks = one->timed_since >= gil->switched;
        one->timed_since = emit(observer, due, thread, id_of(observer, gil), GT_TIMEOUT, asks ? GT_SWITCH_REQUEST : 0);
        gil->asked |= asks;
    }
    gil->quick += count;
}

/* The first reading: who holds and who waits now did so before. */
static void begin(struct observer *observer, struct observed_gil *gil, const struct gil_reading *now, uint64_t time) {
    gil->last = *now;
    gil->time = gil->switched = time;
    gil->holder = now->holder == 0 ? -1 : observe_thread_of(observer, now->holder, time);
    if (gil->holder >= 0 && now->locked) {
        emit(observer, time, gil->holder, id_of(observer, gil), GT_ACQUIRE, 0);
    }
    for (uint32_t i = 0; i < observer->alive_count; i++) {
        int32_t id = -1;
        uint32_t thread = observer->alive[i];
        if ((int32_t)thread != gil->holder && observer->threads[thread].waits_for < 0 &&
            observe_look(observer, thread, &id) == LOOK_WAITS && id == id_of(observer, gil)) {
            starts_waiting(observer, gil, thread, time, 0);
        }
    }
    gil->started = true;
}

bool observe_unchanged(const struct observer *observer, const struct observed_gil *gil, const struct gil_reading *now) {
    return gil->started && now->switches == gil->last.switches && now->locked == gil->last.locked &&
           (observer->wrefs_at < 0 ||
            (now->waits_begun >> 1 == gil->last.waits_begun >> 1 && count_waiting(observer, now) <= gil->waiting));
}

/* `now` was read at `time`. */
void observe_advance(struct observer *observer, struct observed_gil *gil, const struct gil_reading *now,
                     uint64_t time) {
    if (!gil->started) {
        begin(observer, gil, now, time);
        return;
    }
    uint64_t gap = time - gil->time, switches = now->switches - gil->last.switches;
    uint64_t begun = observer->wrefs_at < 0 ? 0 : (now->waits_begun >> 1) - (gil->last.waits_begun >> 1);
    uint32_t waiting = count_waiting(observer, now);
    int32_t former = gil->holder, holder = former;
    if (switches > 0) {
        holder = observe_thread_of(observer, now->holder, time);
        observer->unknown_holders = holder < 0 ? observer->unknown_holders + 1 : 0;
    }
    struct step steps[2 * HIDDEN_MAX + 3];
    uint32_t count = find_steps(observer, gil, now, holder, waiting, steps);
    if (switches > 0) {
        gil->quick += unexplained(observer, gil, begun, waiting, steps, count, time, gap);
    }
    for (uint32_t i = 0; i < count; i++) {
        uint64_t at = time - gap + gap * (i + 1) / (count + 1);
        if (steps[i].thread < 0) {
            gil->switched = steps[i].switches ? at : gil->switched;
        } else if (steps[i].acquires) {
            acquired(observer, gil, steps[i].thread, at, steps[i].switches);
        } else {
            released(observer, gil, steps[i].thread, at, gap);
        }
    }
    gil->holder = holder;
    gil->quick = 0;
    uint32_t found = find_waiters(observer, gil, now, former, time, gap);
    if (begun > found && switches == 0 && now->locked) {
        timed_out(observer, gil, begun - found, time, gap);
    }
    gil->last = *now;
    gil->time = time;
}

/* Whose release may yet prove to have been forced, -1 if nobody's: until it waits again, sleeps elsewhere, or is late.
 */
static int32_t undecided(struct observer *observer, uint64_t time) {
    uint32_t count = atomic_load_explicit(&observer->gil_count, memory_order_relaxed);
    for (uint32_t i = 0; i < count; i++) {
        int32_t thread = observer->gils[i].released_by;
        if (thread >= 0 && observer->threads[thread].may_be_forced && observer->threads[thread].fd >= 0 &&
            time - observer->threads[thread].released <= OBSERVE_HOLDBACK_NS) {
            return thread;
        }
    }
    return -1;
}

/* The thread waits no more: it had the GIL at some instant that no reading showed, and not for long. If somebody holds
 * it now, that was before; where no room is left there, the next switch tells. */
static void had_unseen(struct observer *observer, uint32_t thread, uint64_t time) {
    struct observed_thread *one = &observer->threads[thread];
    const struct observed_gil *gil = &observer->gils[one->waits_for];
    if (gil->last.locked) {
        time = gil->switched - 1;
        if (time < one->last || time < observer->flushed) {
            return;
        }
    }
    stop_waiting(observer, thread);
    emit(observer, time, (int32_t)thread, id_of(observer, gil), GT_ACQUIRE, 0);
    emit(observer, time, (int32_t)thread, id_of(observer, gil), GT_RELEASE, 0);
}

/* Between readings, look at one thread: the last holder while it is open whether it was forced; else by turns, for one
 * that ended, one that stopped waiting without being seen to hold, and, where the condition's counts are not to be
 * understood, one that waits. */
void observe_glance(struct observer *observer, uint64_t time) {
    if (observer->alive_count == 0) {
        return;
    }
    int32_t first = undecided(observer, time);
    uint32_t thread = first >= 0 ? (uint32_t)first : observer->alive[observer->next_look++ % observer->alive_count];
    struct observed_thread *one = &observer->threads[thread];
    int32_t id = -1;
    enum observe_look look = observe_look(observer, thread, &id);
    if (look != LOOK_RUNS && look != LOOK_WAITS) {
        one->may_be_forced = false;
    }
    if (look == LOOK_ENDED) {
        stop_waiting(observer, thread);
        if (one->seen) {
            emit(observer, time, (int32_t)thread, 0, GT_THREAD_END, 0);
        }
        observe_bury(observer, thread);
    } else if (look == LOOK_WAITS && one->waits_for < 0) {
        struct observed_gil *gil = &observer->gils[id];
        if (gil->started && ((int32_t)thread != gil->holder || !gil->last.locked)) {
            starts_waiting(observer, gil, thread, time, 0);
        }
    } else if (one->waits_for >= 0 && (look == LOOK_BLOCKED || (look == LOOK_WAITS && id != one->waits_for))) {
        one->elsewhere += one->elsewhere < SETTLED_LOOKS;
        if (one->elsewhere == SETTLED_LOOKS) {
            had_unseen(observer, thread, time);
        }
    } else {
        one->elsewhere = 0;
    }
}
