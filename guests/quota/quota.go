package quota

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNone is met when a file system keeps no project quotas, or counts and does not enforce them.
var ErrNone = errors.New("its file system keeps no project quotas (ext4: tune2fs -O project,quota -Q prjquota on the unmounted disk; then, and with xfs, mount it with prjquota)")

// The interface of quotactl_fd(2), linux/quota.h and linux/dqblk_xfs.h.
const (
	setQuota    = 0x800008 // Q_SETQUOTA
	getState    = 'X'<<8 + 5
	projects    = 2 // PRJQUOTA
	blockLimits = 1 // QIF_BLIMITS
	enforced    = 1 << 5
	block       = 1024 // bytes that limits are counted in
)

// limits is struct if_dqblk.
type limits struct {
	blocksHard, blocksSoft, space, filesHard, filesSoft, files, blocksTime, filesTime uint64
	valid                                                                             uint32
	_                                                                                 uint32
}

// state is struct fs_quota_stat, of which only the flags count here.
type state struct {
	version int8
	flags   uint16
	_       [76]byte
}

// attributes is struct fsxattr of linux/fs.h.
type attributes struct {
	flags, extent, extents, project, cow uint32
	_                                    [8]byte
}

const (
	getAttributes = 0x801c581f // FS_IOC_FSGETXATTR
	setAttributes = 0x401c5820 // FS_IOC_FSSETXATTR
	inherit       = 1 << 9     // FS_XFLAG_PROJINHERIT: what is made in a folder is of its project
)

// Kept returns ErrNone unless the file system of a file or folder keeps project quotas and enforces them.
func Kept(path string) error {
	return on(path, func(fd uintptr) error { return kept(fd) })
}

// Limit bounds what a project takes on the file system of a folder, in bytes; 0: no bound. A bound is whole KiB.
func Limit(folder string, project uint32, bytes int64) error {
	return on(folder, func(fd uintptr) error {
		if err := kept(fd); err != nil {
			return err
		}
		l := limits{blocksHard: uint64(bytes) / block, valid: blockLimits}
		return quotactl(fd, setQuota, project, unsafe.Pointer(&l))
	})
}

// Project is the project of a file or folder.
func Project(path string) (project uint32, err error) {
	var a attributes
	err = on(path, func(fd uintptr) error { return ioctl(fd, getAttributes, unsafe.Pointer(&a)) })
	return a.project, err
}

// Give puts a file or folder into a project. What is made in the folder from then on is of the project; what is in it already is not.
func Give(path string, project uint32) error {
	return on(path, func(fd uintptr) error {
		var info unix.Stat_t
		var a attributes
		if err := errors.Join(unix.Fstat(int(fd), &info), ioctl(fd, getAttributes, unsafe.Pointer(&a))); err != nil {
			return err
		}
		a.project = project
		if info.Mode&unix.S_IFMT == unix.S_IFDIR {
			a.flags |= inherit
		}
		return ioctl(fd, setAttributes, unsafe.Pointer(&a))
	})
}

// on calls do with a file that is open for reading and was reached by no link of its own.
func on(path string, do func(fd uintptr) error) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := do(f.Fd()); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func kept(fd uintptr) error {
	var s state
	err := quotactl(fd, getState, 0, unsafe.Pointer(&s))
	if err == nil && s.flags&enforced == 0 || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOTBLK) {
		return ErrNone
	}
	return err
}

func quotactl(fd uintptr, command, project uint32, data unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, fd, uintptr(command<<8|projects), uintptr(project), uintptr(data), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func ioctl(fd uintptr, request uint, data unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, uintptr(request), uintptr(data))
	if errno != 0 {
		return errno
	}
	return nil
}
