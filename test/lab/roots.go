package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// rootsFolder is where the repository keeps containers' images as file systems: virtiofs cannot show files with the owners that a
// container's user namespace wants, as a blade's disk can.
const rootsFolder = "build/lab"

// makeRoots makes a file system of each container image that has none yet.
func (u *start) makeRoots(ctx context.Context) error {
	images, err := filepath.Glob(filepath.Join(u.options.Images, "*", "rootfs"))
	if err != nil {
		return err
	}
	folder := filepath.Join(u.options.Source, rootsFolder)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for _, root := range images {
		file := filepath.Join(folder, filepath.Base(filepath.Dir(root))+".ext4")
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			if err != nil {
				return err
			}
			continue
		}
		began := time.Now()
		if err := makeRoot(ctx, root, file, u.options.Name); err != nil {
			return fmt.Errorf("make file system of %s: %w", root, err)
		}
		fmt.Fprintf(u.options.Log, "lab: made %s in %.1f s\n", file, time.Since(began).Seconds())
	}
	return nil
}

// makeRoot makes one; two labs that start at once each make their own, and one of them stays.
func makeRoot(ctx context.Context, root, file, lab string) error {
	var bytes, files int64
	err := filepath.WalkDir(root, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		files++
		bytes += (info.Size() + 4095) / 4096 * 4096
		return nil
	})
	if err != nil {
		return err
	}
	fresh := file + "." + lab
	size := bytes*9/8 + files*512 + 16<<20
	err = run(ctx, "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-N", fmt.Sprint(files+1024), "-d", root, fresh, fmt.Sprint(size/1024))
	if err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	return os.Rename(fresh, file)
}

// mountRoots shows each image's file system where the image is; the machine does so before its services start.
const mountRoots = `for file in /lab/src/` + rootsFolder + `/*.ext4; do
	image=${file##*/}
	at=/lab/images/${image%.ext4}/rootfs
	if [ -d "$at" ]; then mount -o loop,ro,noatime "$file" "$at"; fi
done`
