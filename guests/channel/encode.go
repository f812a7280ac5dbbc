package channel

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// EncodeRequest writes one frame with r in it. It refuses a request above MaxRequest.
func EncodeRequest(w io.Writer, r Request) error { return writeFrame(w, r, MaxRequest) }

// EncodeReply writes one frame with r in it. A status that is too long is made to fit: destinations that are well go first,
// and Status.Omitted counts them.
func EncodeReply(w io.Writer, r Reply) error {
	r.Error = clean(r.Error, maxText)
	if r.Status == nil {
		return writeFrame(w, r, MaxReply)
	}
	whole := *r.Status
	for keep := keepAll; keep <= keepServicesDown; keep++ {
		s := trim(whole, keep)
		r.Status = &s
		err := writeFrame(w, r, MaxReply)
		if !errors.Is(err, errTooLong) {
			return err
		}
	}
	return errTooLong
}

// DecodeRequest reads one frame from the host.
func DecodeRequest(r io.Reader) (Request, error) {
	var req Request
	if err := readFrame(r, &req, MaxRequest); err != nil {
		return Request{}, err
	}
	set := 0
	for _, is := range []bool{req.Hello != nil, req.Apply != nil, req.Status != nil, req.Shutdown != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		return Request{ID: req.ID}, fmt.Errorf("decode request: %d messages in one frame, want exactly one that is known", set)
	}
	return req, nil
}

// DecodeReply reads one frame from the guest. What it returns is bounded in size and printable; whether it is true is another
// matter. An error means that the guest does not keep to the protocol and that the connection is of no more use.
func DecodeReply(r io.Reader) (Reply, error) {
	var rep Reply
	if err := readFrame(r, &rep, MaxReply); err != nil {
		return Reply{}, err
	}
	if err := rep.sanitise(); err != nil {
		return Reply{}, fmt.Errorf("decode reply: %w", err)
	}
	return rep, nil
}

var errTooLong = errors.New("message too long")

func writeFrame(w io.Writer, v any, limit int) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	if len(body) > limit {
		return fmt.Errorf("encode frame: %w: %d bytes, at most %d", errTooLong, len(body), limit)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	if _, err := w.Write(append(frame, body...)); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

func readFrame(r io.Reader, v any, limit uint32) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("read frame: %w", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > limit {
		return fmt.Errorf("read frame: length %d, want 1 to %d", n, limit)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return fmt.Errorf("read frame: %w", err)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("decode frame: %s", clean(err.Error(), maxText))
	}
	return nil
}

// How much of a status trim keeps, from all to the services that are down.
const (
	keepAll = iota
	keepServicesNotWell
	keepNotWell
	keepServices
	keepServicesDown
)

func trim(s Status, keep int) Status {
	if keep == keepAll {
		return s
	}
	s.Probes = nil
	services := make([]ServiceStatus, 0, len(s.Services))
	for _, svc := range s.Services {
		var kept []DestinationStatus
		for _, d := range svc.Destinations {
			if keep < keepServices && (!d.well() || keep == keepServicesNotWell && !svc.allWell()) {
				kept = append(kept, d)
			}
		}
		s.Omitted += len(svc.Destinations) - len(kept)
		svc.Destinations = kept
		if keep < keepServicesDown || !svc.Up || !svc.Announced {
			services = append(services, svc)
		}
	}
	s.Services = services
	return s
}

func (s ServiceStatus) allWell() bool {
	for _, d := range s.Destinations {
		if !d.well() {
			return false
		}
	}
	return true
}

func (d DestinationStatus) well() bool { return d.Up && !d.Unheard }
