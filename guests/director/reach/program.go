package reach

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// programOf is a program for a packet socket without link headers that hears every protocol, with the ports of our probes, one a family at most.
func programOf(ports []netip.AddrPort) []bpf.Instruction {
	program := []bpf.Instruction{bpf.LoadExtension{Num: bpf.ExtProto}}
	for _, at := range ports {
		family := uint32(typeIPv4)
		if at.Addr().Is6() {
			family = typeIPv6
		}
		part := answers(at)
		program = append(program, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: family, SkipTrue: uint8(len(part))})
		program = append(program, part...)
	}
	return append(program, bpf.RetConstant{Val: 0})
}

// answers is the part of a family: segments to one of our ports that acknowledge a SYN, or refuse it. Its first
// question is the address, which no user's packet is for.
func answers(at netip.AddrPort) []bpf.Instruction {
	var questions []bpf.Instruction
	ask := func(offset uint32, size int, mask, want uint32) {
		questions = append(questions, bpf.LoadAbsolute{Off: offset, Size: size})
		if mask != 0 {
			questions = append(questions, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask})
		}
		questions = append(questions, bpf.JumpIf{Cond: bpf.JumpEqual, Val: want}) // where it leads to is known later
	}
	own, destination, protocol, transport := at.Addr().AsSlice(), uint32(16), uint32(9), uint32(header4)
	if at.Addr().Is6() {
		destination, protocol, transport = 24, 6, header6
	}
	for i := 0; i < len(own); i += 4 {
		ask(destination+uint32(i), 4, 0, binary.BigEndian.Uint32(own[i:]))
	}
	ask(protocol, 1, 0, protoTCP)
	if at.Addr().Is4() {
		ask(0, 1, 0, 0x45)
		ask(6, 2, 0x3fff, 0) // no fragment
	}
	ask(transport+2, 2, 0, uint32(at.Port()))
	questions = append(questions, bpf.LoadAbsolute{Off: transport + 13, Size: 1}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: flagsKnown})
	program := append(
		questions,
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: flagSYN | flagACK, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: flagRST | flagACK, SkipTrue: 1},
		bpf.RetConstant{Val: snap},
		bpf.RetConstant{Val: 0},
	)
	for i, q := range program[:len(questions)] {
		if jump, ok := q.(bpf.JumpIf); ok {
			jump.SkipFalse = uint8(len(program) - 1 - (i + 1))
			program[i] = jump
		}
	}
	return program
}

// attach gives a socket its program.
func attach(fd int, program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return fmt.Errorf("assemble socket filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}); err != nil {
		return fmt.Errorf("attach socket filter: %w", err)
	}
	return nil
}
