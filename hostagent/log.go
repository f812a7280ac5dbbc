package hostagent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// What is shown of a guest's console: at most so much of its end, and how often a follower looks for more.
const (
	longestTail = 1 << 20 // bytes
	logPoll     = 500 * time.Millisecond
)

// serveLog answers with the last lines of what a guest has printed on its console, as it printed them, and with follow=1 goes on with
// what comes. The bytes are the guest's: whoever shows them cleans them.
func (a *Agent) serveLog(w http.ResponseWriter, r *http.Request) {
	name := policy.GuestName(r.PathValue("name"))
	lines, err := strconv.Atoi(r.FormValue("lines"))
	if err != nil || lines < 0 {
		http.Error(w, "lines: a number, 0 for all that is kept", http.StatusBadRequest)
		return
	}
	g, err := a.wantedGuest(name)
	if err == nil && a.cfg.Drivers[g.Driver] == nil {
		err = fmt.Errorf("log of %s: this blade runs no %s guests", name, g.Driver)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	file := a.cfg.Drivers[g.Driver].ConsoleLog(name)
	w.Header().Set("Content-Type", "application/octet-stream")
	at, err := copyTail(w, file, lines)
	switch {
	case errors.Is(err, fs.ErrNotExist) && r.FormValue("follow") == "":
		http.Error(w, fmt.Sprintf("log of %s: it has printed nothing yet", name), http.StatusNotFound)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		http.Error(w, fmt.Sprintf("log of %s: %v", name, err), http.StatusInternalServerError)
	case r.FormValue("follow") != "":
		followLog(r.Context(), w, file, at)
	}
}

// position is how far a file was read, and which file it was.
type position struct {
	file   fs.FileInfo
	offset int64
}

// copyTail writes the last lines of a file, 0 for as many as fit.
func copyTail(w io.Writer, name string, lines int) (position, error) {
	f, err := os.Open(name)
	if err != nil {
		return position{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return position{}, err
	}
	begin := max(0, info.Size()-longestTail)
	data, err := io.ReadAll(io.NewSectionReader(f, begin, info.Size()-begin))
	if err != nil {
		return position{}, err
	}
	_, err = w.Write(lastLines(data, lines))
	return position{info, begin + int64(len(data))}, err
}

// lastLines returns the last n lines of data, 0 for all.
func lastLines(data []byte, n int) []byte {
	if n == 0 {
		return data
	}
	at := len(bytes.TrimSuffix(data, []byte("\n")))
	for ; n > 0 && at >= 0; n-- {
		at = bytes.LastIndexByte(data[:at], '\n')
	}
	return data[at+1:]
}

// followLog writes what is added to a file until ctx ends or the reader is gone. A file that was begun anew is read from its beginning.
func followLog(ctx context.Context, w http.ResponseWriter, name string, at position) {
	flush := http.NewResponseController(w)
	for flush.Flush() == nil {
		sleep(ctx, logPoll)
		if ctx.Err() != nil {
			return
		}
		next, err := copyMore(w, name, at)
		if err == nil {
			at = next
		} else if !errors.Is(err, fs.ErrNotExist) {
			return
		}
	}
}

func copyMore(w io.Writer, name string, at position) (position, error) {
	f, err := os.Open(name)
	if err != nil {
		return at, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return at, err
	}
	if at.file == nil || !os.SameFile(at.file, info) || info.Size() < at.offset {
		at.offset = 0
	}
	n, err := io.Copy(w, io.NewSectionReader(f, at.offset, info.Size()-at.offset))
	return position{info, at.offset + n}, err
}
