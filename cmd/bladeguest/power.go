package main

import (
	"encoding/binary"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// A struct input_event on a 64-bit machine (linux/input.h): two words of time, type, code, value.
const (
	eventSize = 24
	evKey     = 1
	keyPower  = 116
	pressed   = 1
)

// watchPowerButton sends on button when one of the machine's input devices reports its power key: this is what the
// hypervisor's polite shutdown does. Devices of a module that is still loading are looked for a few times.
func watchPowerButton(log *slog.Logger, button chan<- struct{}) {
	known := map[string]bool{}
	for range 5 {
		paths, _ := filepath.Glob("/dev/input/event*")
		for _, p := range paths {
			if known[p] {
				continue
			}
			f, err := os.Open(p)
			if err != nil {
				continue
			}
			known[p] = true
			go readButton(f, button)
		}
		time.Sleep(2 * time.Second)
	}
	if len(known) == 0 {
		log.Warn("no power button: the hypervisor's shutdown is not heard, the blade's is")
	}
}

func readButton(r io.ReadCloser, button chan<- struct{}) {
	defer r.Close()
	event := make([]byte, eventSize)
	for {
		if _, err := io.ReadFull(r, event); err != nil {
			return
		}
		if !isPowerKey(event) {
			continue
		}
		select {
		case button <- struct{}{}:
		default:
		}
	}
}

func isPowerKey(event []byte) bool {
	return len(event) == eventSize &&
		binary.NativeEndian.Uint16(event[16:]) == evKey &&
		binary.NativeEndian.Uint16(event[18:]) == keyPower &&
		binary.NativeEndian.Uint32(event[20:]) == pressed
}
