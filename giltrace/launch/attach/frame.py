"""A call frame that restores its thread: what the kernel would put on the stack for a signal's handler.

A function that is entered with `rsp` at the start of such a frame returns into rt_sigreturn, and that system call sets
all registers, the vector state and the signal mask to what the frame says. Nobody need be there to see it: from the
moment that a thread is sent into the function, it finds back by itself. Layout: Linux x86-64, struct rt_sigframe.
"""

from __future__ import annotations

import struct

from giltrace.launch.attach.ptrace import Registers

#: Leaf functions keep data in this many bytes below `rsp` without moving it.
RED_ZONE = 128

_ALIGNMENT = 64  # of an XSAVE area

# struct rt_sigframe: the return address, then struct ucontext up to its signal mask. The siginfo behind it is not read.
_UC_FLAGS, _UC_STACK, _SIGCONTEXT, _SIGMASK, SIZE = 8, 24, 48, 304, 312

_UC_FP_XSTATE, _UC_SIGCONTEXT_SS, _UC_STRICT_RESTORE_SS = 1, 2, 4
#: Not a mode that an alternate signal stack can have: the kernel then leaves the one it has as it is.
_NO_STACK_MODE = 0x7FFF0000

#: struct sigcontext, up to the flags.
_GENERAL = ("r8 r9 r10 r11 r12 r13 r14 r15 rdi rsi rbp rbx rdx rax rcx rsp rip eflags").split()  # noqa: SIM905

_MAGIC1, _MAGIC2 = 0x46505853, 0x46505845
_SW_RESERVED = 464  # in an XSAVE area: read by the kernel, not by the processor
_XSTATE_BV = 512
_LEGACY_END = 576  # of the fixed part, with the header
_AMX_BITS, _AMX_OFFSET, _PKRU_BIT = 0b11 << 17, 2752, 1 << 9
_BEFORE_AMX = 2688  # where AVX-512 ends; then 8 bytes of PKRU
_FCW, _MXCSR = (0, 0x37F), (24, 0x1F80)


def signal_frame(restorer: int, registers: Registers, mask: int, fpstate: int) -> bytes:
    """Return the `SIZE` bytes of a frame that restores `registers` and the signal mask `mask`.

    `restorer` is the address of code that calls rt_sigreturn, `fpstate` that of an area made by `vector_area`, or 0 for
    the vector state that programs start with. The frame must lie at an address of 16 n + 8.
    """
    frame = bytearray(SIZE)
    flags = _UC_SIGCONTEXT_SS | _UC_STRICT_RESTORE_SS | (_UC_FP_XSTATE if fpstate else 0)
    struct.pack_into("<QQQ", frame, 0, restorer, flags, 0)
    struct.pack_into("<QiiQ", frame, _UC_STACK, 0, _NO_STACK_MODE, 0, 0)
    general = [getattr(registers, name) for name in _GENERAL]
    struct.pack_into("<18Q4H", frame, _SIGCONTEXT, *general, registers.cs, 0, 0, registers.ss)
    struct.pack_into("<Q", frame, _SIGCONTEXT + 184, fpstate)  # behind err, trapno, oldmask, cr2
    struct.pack_into("<Q", frame, _SIGMASK, mask)
    return bytes(frame)


def vector_area(state: bytes) -> bytes:
    """Return the bytes of a frame's vector state that restore `state`, an XSAVE area as ptrace reads it.

    Raises ValueError for one that is none. To be placed at a multiple of 64.
    """
    if len(state) < _LEGACY_END:
        raise ValueError("no XSAVE area")
    enabled, (used,) = _enabled(state), struct.unpack_from("<Q", state, _XSTATE_BV)
    size = len(state)
    if size > _AMX_OFFSET and enabled & _AMX_BITS and not used & _AMX_BITS:
        # The kernel allows this much only to threads that have asked for AMX.
        enabled &= ~_AMX_BITS
        size = _BEFORE_AMX + (8 if enabled & _PKRU_BIT else 0)
    area = bytearray(state[:size] + struct.pack("<I", _MAGIC2))
    # Protection keys count as in use even where they have the value that the processor takes for unused.
    struct.pack_into("<Q", area, _XSTATE_BV, used | (enabled & _PKRU_BIT))
    struct.pack_into("<IIQI28x", area, _SW_RESERVED, _MAGIC1, len(area), enabled, size)
    return bytes(area)


def initial_vector_state(state: bytes) -> bytes:
    """Return `state`, an XSAVE area as ptrace reads it, with all but the protection keys as programs start with."""
    fresh = bytearray(state)
    struct.pack_into("<H", fresh, *_FCW)
    struct.pack_into("<I", fresh, *_MXCSR)
    struct.pack_into("<Q", fresh, _XSTATE_BV, _enabled(state) & _PKRU_BIT)
    return bytes(fresh)


def _enabled(state: bytes) -> int:
    """The processor's XCR0, which ptrace puts where signal frames have their own data."""
    (features,) = struct.unpack_from("<Q", state, _SW_RESERVED)
    return int(features)


class Block:
    """Bytes that grow downwards from `top`, to be written into a stack below everything that is in use."""

    def __init__(self, top: int) -> None:
        self.bottom = self._top = top
        self._parts: list[bytes] = []

    def push(self, data: bytes, alignment: int = 8, offset: int = 0) -> int:
        """Place `data` at the next address below of n * `alignment` + `offset`; returns that address."""
        address = (self.bottom - len(data) - offset) // alignment * alignment + offset
        self._parts.append(data + bytes(self.bottom - address - len(data)))
        self.bottom = address
        return address

    def push_vector_area(self, area: bytes) -> int:
        """Place what `vector_area` made; returns its address."""
        return self.push(area, _ALIGNMENT)

    def push_frame(self, frame: bytes) -> int:
        """Place what `signal_frame` made; returns its address."""
        return self.push(frame, 16, 8)

    def bytes(self) -> bytes:
        """Return all, to be written at `bottom`."""
        return b"".join(reversed(self._parts))
