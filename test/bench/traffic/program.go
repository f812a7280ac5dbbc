package traffic

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Program is a loaded XDP program that turns a template into packets of a flow and lets the kernel receive them.
type Program struct {
	fd    int
	frame []byte
}

// Load makes the program of a flow. It needs CAP_BPF and CAP_NET_ADMIN.
func Load(f Flow) (*Program, error) {
	code := f.code()
	license := []byte("Apache-2.0\x00")
	report := make([]byte, 64<<10)
	attr := struct {
		kind, count       uint32
		code, license     uint64
		logLevel, logSize uint32
		log               uint64
	}{
		kind: unix.BPF_PROG_TYPE_XDP, count: uint32(len(code) / 8), code: address(code), license: address(license),
		logLevel: 1, logSize: uint32(len(report)), log: address(report),
	}
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	if err != nil {
		return nil, fmt.Errorf("load program: %w: %s", err, unix.ByteSliceToString(report))
	}
	return &Program{fd: fd, frame: f.frame()}, nil
}

// Close lets go of the program.
func (p *Program) Close() error { return unix.Close(p.fd) }

// testRun is what BPF_PROG_TEST_RUN takes (include/uapi/linux/bpf.h, union bpf_attr, test).
type testRun struct {
	fd, result        uint32
	sizeIn, sizeOut   uint32
	dataIn, dataOut   uint64
	repeat, duration  uint32
	contextIn, ctxOut uint32
	context, _        uint64
	flags, cpu, batch uint32
	_                 uint32
}

// batch is how many frames are received at once, as a driver would.
const batch = 64

// run has the kernel receive packets at a device and returns nanoseconds for each, by its own clock: the call itself takes
// milliseconds more, to prepare and to clean up.
func (p *Program) run(device, packets int) (float64, error) {
	context := make([]byte, 24) // struct xdp_md
	binary.NativeEndian.PutUint32(context[4:], uint32(len(p.frame)))
	binary.NativeEndian.PutUint32(context[12:], uint32(device))
	attr := testRun{
		fd: uint32(p.fd), sizeIn: uint32(len(p.frame)), dataIn: address(p.frame), repeat: uint32(packets),
		contextIn: uint32(len(context)), context: address(context), flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES, batch: batch,
	}
	_, err := bpf(unix.BPF_PROG_TEST_RUN, unsafe.Pointer(&attr), unsafe.Offsetof(attr.batch)+4)
	runtime.KeepAlive(context)
	if err != nil {
		return 0, fmt.Errorf("run program: %w", err)
	}
	return float64(attr.duration), nil
}

func bpf(command int, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		fd, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attr), size)
		if errno == unix.EINTR || errno == unix.EAGAIN {
			continue
		}
		if errno != 0 {
			return -1, errno
		}
		return int(fd), nil
	}
}

func address(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// Instructions in use (Documentation/bpf/standardization/instruction-set.rst): class, size and mode, or operation and source.
const (
	load32      = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
	load16      = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_H
	store16     = unix.BPF_STX | unix.BPF_MEM | unix.BPF_H
	moveReg     = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_X
	moveImm     = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K
	addReg      = unix.BPF_ALU64 | unix.BPF_ADD | unix.BPF_X
	addImm      = unix.BPF_ALU64 | unix.BPF_ADD | unix.BPF_K
	shiftImm    = unix.BPF_ALU64 | unix.BPF_RSH | unix.BPF_K
	modImm      = unix.BPF_ALU64 | unix.BPF_MOD | unix.BPF_K
	andImm      = unix.BPF_ALU64 | unix.BPF_AND | unix.BPF_K
	orImm       = unix.BPF_ALU64 | unix.BPF_OR | unix.BPF_K
	xorImm      = unix.BPF_ALU64 | unix.BPF_XOR | unix.BPF_K
	toBig       = unix.BPF_ALU | unix.BPF_END | unix.BPF_TO_BE
	jumpGreater = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_X
	callHelper  = unix.BPF_JMP | unix.BPF_CALL
	exit        = unix.BPF_JMP | unix.BPF_EXIT

	random = 7 // bpf_get_prandom_u32
	pass   = 2 // XDP_PASS
)

// assembler appends instructions of eight bytes.
type assembler []byte

func (a *assembler) add(op, dst, src byte, offset int16, value int32) {
	*a = append(*a, op, src<<4|dst)
	*a = binary.NativeEndian.AppendUint16(*a, uint16(offset))
	*a = binary.NativeEndian.AppendUint32(*a, uint32(value))
}

// code writes the program: r6 is the frame, r7 the VIP's low half, r8 its port, r9 the client's low half.
func (f Flow) code() []byte {
	l := f.layout()
	base := f.VIP.AsSlice()
	first := int32(binary.BigEndian.Uint16(base[len(base)-2:]))
	var a assembler
	a.add(load32, 6, 1, 0, 0)
	a.add(load32, 2, 1, 4, 0)
	a.add(moveReg, 3, 6, 0, 0)
	a.add(addImm, 3, 0, 0, int32(l.length))
	jump := len(a)
	a.add(jumpGreater, 3, 2, 0, 0)

	a.add(callHelper, 0, 0, 0, random)
	a.add(moveReg, 7, 0, 0, 0)
	a.add(andImm, 7, 0, 0, 0x000fffff)
	a.add(modImm, 7, 0, 0, int32(f.VIPs))
	a.add(addImm, 7, 0, 0, first)
	a.add(toBig, 7, 0, 0, 16)
	a.add(store16, 6, 7, int16(l.vip), 0)
	a.add(moveReg, 8, 0, 0, 0)
	a.add(shiftImm, 8, 0, 0, 20)
	a.add(andImm, 8, 0, 0, 0xfff)
	a.add(modImm, 8, 0, 0, int32(f.Ports))
	a.add(addImm, 8, 0, 0, int32(f.Port))
	a.add(toBig, 8, 0, 0, 16)
	a.add(store16, 6, 8, int16(l.vipPort), 0)

	a.add(callHelper, 0, 0, 0, random)
	a.add(moveReg, 9, 0, 0, 0)
	a.add(shiftImm, 9, 0, 0, 16)
	a.add(andImm, 9, 0, 0, 0xffff)
	if f.Clients > 0 {
		a.add(modImm, 9, 0, 0, int32(f.Clients))
		a.add(moveImm, 0, 0, 0, 0)
	}
	a.add(store16, 6, 9, int16(l.client), 0)
	a.add(moveReg, 8, 0, 0, 0)
	a.add(orImm, 8, 0, 0, 0x8000)
	a.add(toBig, 8, 0, 0, 16) // ports from 32768 on
	a.add(store16, 6, 8, int16(l.clientPort), 0)
	if !f.v6() {
		checksum(&a, sumOf(f.frame()[ethernetLength:ethernetLength+ipv4Length]), checksumAt)
	}
	a.add(load16, 1, 6, int16(l.vipPort), 0)
	a.add(load16, 2, 6, int16(l.clientPort), 0)
	a.add(addReg, 1, 2, 0, 0)
	checksum(&a, f.transportSum(), l.length-tcpLength+16, 1)
	binary.NativeEndian.PutUint16(a[jump+2:], uint16((len(a)-jump)/8-1))
	a.add(moveImm, 0, 0, 0, pass)
	a.add(exit, 0, 0, 0, 0)
	return a
}

// checksum finishes a checksum at an offset: br_netfilter drops what has a wrong one, and conntrack does not follow it. The sum is that
// of the fixed parts; the low halves of both addresses are added, and registers.
func checksum(a *assembler, sum uint32, at int, registers ...byte) {
	a.add(moveImm, 3, 0, 0, int32(sum))
	for _, r := range append(registers, 7, 9) {
		a.add(addReg, 3, r, 0, 0)
	}
	for range 2 {
		a.add(moveReg, 4, 3, 0, 0)
		a.add(shiftImm, 4, 0, 0, 16)
		a.add(andImm, 3, 0, 0, 0xffff)
		a.add(addReg, 3, 4, 0, 0)
	}
	a.add(xorImm, 3, 0, 0, 0xffff)
	a.add(store16, 6, 3, int16(at), 0)
}
