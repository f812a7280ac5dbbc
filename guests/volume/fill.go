package volume

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"
)

// fill copies the folder at a path of a tree into a folder that is there, with owners, modes and links. It reads nothing outside of the
// tree, whatever its links say, and leaves out what is neither a file, a folder nor a link.
func fill(to, tree, from string) error {
	source, err := os.OpenRoot(tree)
	if err != nil {
		return err
	}
	defer source.Close()
	info, err := source.Stat(from)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look into the image: %w", err)
	case !info.IsDir():
		return fmt.Errorf("the image has a file at /%s", from)
	}
	folder, err := source.OpenRoot(from)
	if err != nil {
		return err
	}
	defer folder.Close()
	target, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer target.Close()
	return fs.WalkDir(folder.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil {
			err = copyOne(target, folder, name)
		}
		if err != nil {
			return fmt.Errorf("copy /%s of the image: %w", path.Join(from, name), err)
		}
		return nil
	})
}

// copyOne copies one entry. A folder comes before what is in it.
func copyOne(to, from *os.Root, name string) error {
	info, err := from.Lstat(name)
	if err != nil {
		return err
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		if name != "." {
			err = to.Mkdir(name, 0o700)
		}
	case 0:
		err = copyFile(to, from, name)
	case fs.ModeSymlink:
		var link string
		if link, err = from.Readlink(name); err == nil {
			err = to.Symlink(link, name)
		}
	default:
		return nil
	}
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("no owner")
	}
	if err := to.Lchown(name, int(owner.Uid), int(owner.Gid)); err != nil {
		return err
	}
	if info.Mode().Type() == fs.ModeSymlink {
		return nil
	}
	// After the owner, whose change takes the bits away that run a file as another user.
	return to.Chmod(name, info.Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky))
}

func copyFile(to, from *os.Root, name string) error {
	r, err := from.Open(name)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := to.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
