/* Call frame information: a description (FDE) says for each instruction of a function how its frame's end (CFA) is
 * found and where the caller's registers are. Of what the format knows this reads what compilers write for C; whatever
 * else there is ends the walk. Nothing is locked, allocated or asked of the loader. */
#include "cfi.h"

#include "likely.h"

#include <string.h>

#if defined(__x86_64__)
enum { FRAME_REGISTER = 6, STACK_REGISTER = 7, RETURN_COLUMN = 16 };
#elif defined(__aarch64__)
enum { FRAME_REGISTER = 29, STACK_REGISTER = 31, RETURN_COLUMN = 30 };
#endif

/* Pointer encodings: the low four bits are the format, the next three what it is relative to. */
enum { ENC_ABSOLUTE = 0, ENC_UDATA2 = 2, ENC_UDATA4 = 3, ENC_SDATA4 = 11, ENC_FORMAT = 0x0F, ENC_PCREL = 0x10 };
enum { ENC_TABLE = 0x3B, ENC_OMIT = 0xFF };

/* A row of the table that the instructions of a description build. */
struct row {
    uint64_t cfa_register;
    int64_t cfa_offset;
    struct rule {
        enum { SAME, AT_CFA, LOST } kind;
        int64_t offset;
    } frame, code;
};

enum { SAVED_MAX = 4 };

struct reader {
    const uint8_t *at, *end;
    bool failed;
};

struct machine {
    struct row row, initial, saved[SAVED_MAX];
    unsigned depth;
    uint64_t code_factor;
    int64_t data_factor;
    uintptr_t location;
    uint8_t encoding; /* of a description's pointers to code */
    bool augmented;
};

static uint64_t take(struct reader *reader, unsigned bytes) {
    uint64_t value = 0;
    if ((size_t)(reader->end - reader->at) < bytes) {
        reader->failed = true;
        return 0;
    }
    memcpy(&value, reader->at, bytes);
    reader->at += bytes;
    return value;
}

static uint64_t take_leb(struct reader *reader, bool is_signed) {
    uint64_t value = 0, byte;
    unsigned shift = 0;
    do {
        byte = take(reader, 1);
        value |= shift < 64 ? (byte & 0x7F) << shift : 0;
        shift += 7;
    } while ((byte & 0x80) != 0 && !reader->failed);
    return is_signed && shift < 64 && (byte & 0x40) != 0 ? value | ~(uint64_t)0 << shift : value;
}

static uint64_t take_unsigned(struct reader *reader) {
    return take_leb(reader, false);
}

static int64_t take_signed(struct reader *reader) {
    return (int64_t)take_leb(reader, true);
}

/* As far as descriptions of what is loaded use it. */
static uint64_t take_encoded(struct reader *reader, uint8_t encoding) {
    uintptr_t place = (uintptr_t)reader->at;
    uint64_t value;
    switch (encoding & ENC_FORMAT) {
    case ENC_ABSOLUTE: value = take(reader, sizeof value); break;
    case ENC_UDATA2: value = take(reader, 2); break;
    case ENC_UDATA4: value = take(reader, 4); break;
    case ENC_SDATA4: value = (uint64_t)(int64_t)(int32_t)take(reader, 4); break;
    default:
        value = take(reader, sizeof value);
        reader->failed |= (encoding & ENC_FORMAT) != 12; /* sdata8 */
        break;
    }
    return (encoding & 0x70) == ENC_PCREL ? value + place : value;
}

/* A record's contents; empty for the end of the section, failed for what is longer than any that is read here. */
static struct reader open_record(const uint8_t *record) {
    struct reader reader = {record, record + 4, false};
    uint64_t length = take(&reader, 4);
    reader.failed = length == 0 || length > 1u << 20;
    reader.end = reader.failed ? reader.at : reader.at + length;
    return reader;
}

/* The part that descriptions share (CIE): factors, and how the rest is encoded. */
static bool read_common(const uint8_t *record, struct machine *machine, struct reader *instructions) {
    struct reader reader = open_record(record);
    uint64_t id = take(&reader, 4), version = take(&reader, 1);
    const char *letters = (const char *)reader.at;
    while (take(&reader, 1) != 0 && !reader.failed) {
    }
    if (reader.failed || id != 0 || (version != 1 && version != 3)) {
        return false;
    }
    if (letters[0] == 'e' && letters[1] == 'h') {
        take(&reader, sizeof(uintptr_t)); /* of old compilers */
        letters += 2;
    }
    machine->code_factor = take_unsigned(&reader);
    machine->data_factor = take_signed(&reader);
    uint64_t column = version == 1 ? take(&reader, 1) : take_unsigned(&reader);
    machine->encoding = ENC_ABSOLUTE;
    machine->augmented = *letters == 'z';
    if (machine->augmented) {
        uint64_t length = take_unsigned(&reader);
        struct reader rest = {reader.at, reader.at + length, length > (size_t)(reader.end - reader.at)};
        for (letters++; *letters != 0 && !rest.failed; letters++) {
            switch (*letters) {
            case 'R': machine->encoding = (uint8_t)take(&rest, 1); break;
            case 'P': take_encoded(&rest, (uint8_t)take(&rest, 1)); break;
            case 'L': take(&rest, 1); break;
            case 'B': break;             /* return addresses are signed by the other key */
            default: rest.failed = true; /* 'S', a signal's frame, among them */
            }
        }
        reader.failed |= rest.failed;
        reader.at = rest.failed ? reader.end : reader.at + length;
    }
    *instructions = reader;
    return !reader.failed && *letters == 0 && column == RETURN_COLUMN;
}

static void set_rule(struct row *row, uint64_t column, struct rule rule) {
    if (column == FRAME_REGISTER) {
        row->frame = rule;
    } else if (column == RETURN_COLUMN) {
        row->code = rule;
    }
}

static void restore_rule(struct machine *machine, uint64_t column) {
    set_rule(&machine->row, column, column == FRAME_REGISTER ? machine->initial.frame : machine->initial.code);
}

static void set_saved(struct machine *machine, uint64_t column, int64_t factored) {
    set_rule(&machine->row, column, (struct rule){AT_CFA, factored * machine->data_factor});
}

/* Operations without a parameter in their low six bits. */
enum operation {
    OP_NOP = 0x00,
    OP_ADVANCE_1 = 0x02,
    OP_ADVANCE_2 = 0x03,
    OP_ADVANCE_4 = 0x04,
    OP_OFFSET = 0x05,
    OP_RESTORE = 0x06,
    OP_UNDEFINED = 0x07,
    OP_SAME = 0x08,
    OP_REMEMBER_STATE = 0x0A,
    OP_RESTORE_STATE = 0x0B,
    OP_CFA = 0x0C,
    OP_CFA_REGISTER = 0x0D,
    OP_CFA_OFFSET = 0x0E,
    OP_EXPRESSION = 0x10,
    OP_OFFSET_SIGNED = 0x11,
    OP_CFA_SIGNED = 0x12,
    OP_CFA_OFFSET_SIGNED = 0x13,
    OP_VALUE_EXPRESSION = 0x16,
    OP_SIGN_RETURN_ADDRESS = 0x2D,
    OP_ARGUMENTS_SIZE = 0x2E,
};

/* How a frame's end is found. */
static bool define_cfa(struct machine *machine, struct reader *reader, enum operation operation) {
    struct row *row = &machine->row;
    if (operation == OP_CFA || operation == OP_CFA_REGISTER || operation == OP_CFA_SIGNED) {
        row->cfa_register = take_unsigned(reader);
    }
    if (operation == OP_CFA || operation == OP_CFA_OFFSET) {
        row->cfa_offset = (int64_t)take_unsigned(reader);
    } else if (operation != OP_CFA_REGISTER) {
        row->cfa_offset = take_signed(reader) * machine->data_factor;
    }
    return true;
}

/* What an expression says is not worked out: what it is about counts as lost. */
static bool lose_by_expression(struct machine *machine, struct reader *reader) {
    set_rule(&machine->row, take_unsigned(reader), (struct rule){LOST, 0});
    uint64_t length = take_unsigned(reader);
    bool fits = !reader->failed && length <= (size_t)(reader->end - reader->at);
    reader->at += fits ? length : 0;
    return fits;
}

/* False for an operation that is not known. */
static bool run_one(struct machine *machine, struct reader *reader, enum operation operation) {
    uint64_t column;
    switch (operation) {
    case OP_NOP: return true;
    case OP_ADVANCE_1: machine->location += take(reader, 1) * machine->code_factor; return true;
    case OP_ADVANCE_2: machine->location += take(reader, 2) * machine->code_factor; return true;
    case OP_ADVANCE_4: machine->location += take(reader, 4) * machine->code_factor; return true;
    case OP_OFFSET:
        column = take_unsigned(reader);
        set_saved(machine, column, (int64_t)take_unsigned(reader));
        return true;
    case OP_OFFSET_SIGNED:
        column = take_unsigned(reader);
        set_saved(machine, column, take_signed(reader));
        return true;
    case OP_RESTORE: restore_rule(machine, take_unsigned(reader)); return true;
    case OP_UNDEFINED: set_rule(&machine->row, take_unsigned(reader), (struct rule){LOST, 0}); return true;
    case OP_SAME: set_rule(&machine->row, take_unsigned(reader), (struct rule){SAME, 0}); return true;
    case OP_REMEMBER_STATE:
        if (machine->depth == SAVED_MAX) {
            return false;
        }
        machine->saved[machine->depth++] = machine->row;
        return true;
    case OP_RESTORE_STATE:
        if (machine->depth == 0) {
            return false;
        }
        machine->row = machine->saved[--machine->depth];
        return true;
    case OP_CFA:
    case OP_CFA_REGISTER:
    case OP_CFA_OFFSET:
    case OP_CFA_SIGNED:
    case OP_CFA_OFFSET_SIGNED: return define_cfa(machine, reader, operation);
    case OP_EXPRESSION:
    case OP_VALUE_EXPRESSION: return lose_by_expression(machine, reader);
    case OP_SIGN_RETURN_ADDRESS: return true; /* told by the address itself */
    case OP_ARGUMENTS_SIZE: take_unsigned(reader); return true;
    default: return false;
    }
}

/* Run instructions as far as they are about what stands before `stop`. */
static bool run(struct machine *machine, struct reader *reader, uintptr_t stop) {
    while (reader->at < reader->end && !reader->failed) {
        uint8_t operation = (uint8_t)take(reader, 1), low = operation & 0x3F;
        switch (operation >> 6) { /* three have their parameter in the same byte */
        case 1: machine->location += low * machine->code_factor; break;
        case 2: set_saved(machine, low, (int64_t)take_unsigned(reader)); break;
        case 3: restore_rule(machine, low); break;
        default:
            if (!run_one(machine, reader, (enum operation)low)) {
                return false;
            }
        }
        if (machine->location > stop) {
            return !reader->failed;
        }
    }
    return !reader->failed;
}

/* The head of the table by which a linker lets descriptions be found: pairs of code and description, sorted. */
struct table {
    uint8_t version, section_encoding, count_encoding, encoding;
    int32_t section;
    uint32_t count;
    struct pair {
        int32_t code, description; /* relative to the table */
    } pairs[];
};

/* A return address lies behind its call, maybe behind its function. */
static uintptr_t place_of(const struct cfi_frame *frame) {
    return frame->code - frame->called;
}

static const uint8_t *find_description(const struct table *table, uintptr_t place) {
    if (table == NULL || table->version != 1 || table->count_encoding != ENC_UDATA4 || table->encoding != ENC_TABLE ||
        (table->section_encoding & ENC_FORMAT) != ENC_SDATA4) {
        return NULL;
    }
    intptr_t wanted = (intptr_t)(place - (uintptr_t)table);
    uint32_t low = 0, high = table->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (table->pairs[middle].code <= wanted) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low == 0 ? NULL : (const uint8_t *)table + table->pairs[low - 1].description;
}

/* The common part that a description belongs to: so many bytes before the word that says so. */
static const uint8_t *common_of(const uint8_t *description) {
    uint32_t distance;
    memcpy(&distance, description + 4, sizeof distance);
    return description + 4 - distance;
}

/* Read a description up to its instructions. */
static bool open_description(const uint8_t *description, struct cfi_extent *extent, struct machine *machine,
                             struct reader *common, struct reader *own) {
    if (!read_common(common_of(description), machine, common)) {
        return false;
    }
    *own = open_record(description);
    take(own, 4);
    extent->start = take_encoded(own, machine->encoding);
    extent->end = extent->start + take_encoded(own, machine->encoding & ENC_FORMAT);
    if (machine->augmented) {
        uint64_t length = take_unsigned(own);
        own->failed |= length > (size_t)(own->end - own->at);
        own->at += own->failed ? 0 : length;
    }
    return !own->failed;
}

/* The description of the code that a frame is in; false if there is none that is understood. */
bool cfi_find(const struct elf_object *object, const struct cfi_frame *frame, struct cfi_extent *out) {
    struct machine machine;
    struct reader common, own;
    out->description = find_description((const struct table *)object->frame_table, place_of(frame));
    return out->description != NULL && open_description(out->description, out, &machine, &common, &own) &&
           place_of(frame) >= out->start && place_of(frame) < out->end;
}

static bool recover(const struct rule *rule, uintptr_t cfa, uintptr_t now, uintptr_t *out,
                    bool read(uintptr_t address, uintptr_t *out)) {
    *out = now;
    return rule->kind == SAME || (rule->kind == AT_CFA && read(cfa + (uintptr_t)rule->offset, out));
}

/* Go from a frame to its caller's; `read` fetches words of the stack. */
bool cfi_step(const struct cfi_extent *extent, struct cfi_frame *frame, bool read(uintptr_t address, uintptr_t *out)) {
    struct machine machine = {.depth = 0};
    struct reader common, own;
    struct cfi_extent again;
    if (!open_description(extent->description, &again, &machine, &common, &own)) {
        return false;
    }
    machine.location = extent->start;
    if (!run(&machine, &common, UINTPTR_MAX)) {
        return false;
    }
    machine.initial = machine.row;
    if (!run(&machine, &own, place_of(frame))) {
        return false;
    }
    const struct row *row = &machine.row;
    if (row->cfa_register != STACK_REGISTER && row->cfa_register != FRAME_REGISTER) {
        return false;
    }
    uintptr_t cfa = (row->cfa_register == STACK_REGISTER ? frame->stack : frame->frame) + (uintptr_t)row->cfa_offset;
    struct cfi_frame caller = {.stack = cfa, .called = true};
    /* Only the innermost frame may have its return address in a register still. */
    bool known = row->code.kind == AT_CFA || (row->code.kind == SAME && !frame->called);
    if (!known || cfa < frame->stack || !recover(&row->code, cfa, frame->link, &caller.code, read) ||
        !recover(&row->frame, cfa, frame->frame, &caller.frame, read)) {
        return false;
    }
#if defined(__aarch64__)
    caller.code &= ((uintptr_t)1 << 48) - 1; /* without its signature */
#endif
    *frame = caller;
    return true;
}
