package bundle

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"time"
)

// What a bundle holds at most, in bytes. Of a longer text the end stays: there is what happened last.
const (
	mostOfOne = 2 << 20
	mostOfAll = 32 << 20

	longestSecret = 64 << 10
)

// Item is one file of a bundle: its text, or why there is none.
type Item struct {
	Name string
	Text []byte
	Err  error
}

// Write packs items, without secrets, below a folder.
func Write(w io.Writer, folder string, now time.Time, r *Redactor, items []Item) error {
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	left := mostOfAll
	for _, item := range items {
		text := item.Text
		if item.Err != nil {
			text = fmt.Appendf(nil, "not there: %v\n", item.Err)
		}
		// Secrets go before the last cut, which may halve one that is not known for it then.
		text = cut(r.Text(cut(text, mostOfOne+longestSecret)), min(mostOfOne, left))
		left -= len(text)
		h := &tar.Header{Name: path.Join(folder, item.Name), Mode: 0o600, Size: int64(len(text)), ModTime: now}
		if err := t.WriteHeader(h); err != nil {
			return fmt.Errorf("write %s: %w", item.Name, err)
		}
		if _, err := t.Write(text); err != nil {
			return fmt.Errorf("write %s: %w", item.Name, err)
		}
	}
	return errors.Join(t.Close(), z.Close())
}

const omitted = "[what stood before was left out]\n"

// cut leaves the end of a text that is too long.
func cut(text []byte, most int) []byte {
	if len(text) <= most {
		return text
	}
	if most <= len(omitted) {
		return nil
	}
	return append([]byte(omitted), text[len(text)-most+len(omitted):]...)
}
