package doctor

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of linux/ethtool.h.
const (
	getFlags = 0x25
	setFlags = 0x26
	flagLRO  = 1 << 15
)

// ethtoolValue is struct ethtool_value; ifreq is struct ifreq with a pointer in its union.
type (
	ethtoolValue struct{ cmd, data uint32 }
	ifreq        struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
)

func ethtool(fd int, nic string, value *ethtoolValue) error {
	var r ifreq
	if len(nic) >= unix.IFNAMSIZ {
		return fmt.Errorf("ask %s: the name is too long", nic)
	}
	copy(r.name[:], nic)
	r.data = unsafe.Pointer(value)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&r))); errno != 0 {
		return fmt.Errorf("ask %s: %w", nic, errno)
	}
	return nil
}

// ethtoolFlags returns a NIC's ETH_FLAG_ bits.
func ethtoolFlags(fd int, nic string) (uint32, error) {
	v := ethtoolValue{cmd: getFlags}
	err := ethtool(fd, nic, &v)
	return v.data, err
}

func setEthtoolFlags(fd int, nic string, flags uint32) error {
	return ethtool(fd, nic, &ethtoolValue{cmd: setFlags, data: flags})
}
