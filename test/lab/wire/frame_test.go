package wire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRoundTrip(t *testing.T) {
	type frame struct {
		Kind    Kind
		Payload string // which cmp compares at once
	}
	want := []frame{{Stdin, "a\x00b"}, {StdinEnd, ""}, {Stdout, strings.Repeat("x", MaxPayload)}}
	var stream bytes.Buffer
	conn := NewConn(&stream)
	for _, f := range want {
		if err := conn.Send(f.Kind, []byte(f.Payload)); err != nil {
			t.Fatal(err)
		}
	}
	var got []frame
	for {
		kind, payload, err := conn.Receive()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, frame{kind, string(payload)})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("(-want +got)\n" + diff)
	}
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte("i\x00\x00\x00\x01a"))
	f.Add([]byte("i\xff\xff\xff\xff"))
	f.Add([]byte("i\x00\x00\x00\x05abc"))
	f.Fuzz(func(t *testing.T, data []byte) {
		conn := NewConn(bytes.NewBuffer(data))
		read := 0
		for {
			_, payload, err := conn.Receive()
			if err != nil {
				break
			}
			read += 5 + len(payload)
		}
		if read > len(data) {
			t.Errorf("%d bytes read out of %d", read, len(data))
		}
	})
}
