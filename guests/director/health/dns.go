package health

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/bladenet/bladenet/policy"
)

var dnsTypes = map[string]dnsmessage.Type{
	"": dnsmessage.TypeA, "A": dnsmessage.TypeA, "AAAA": dnsmessage.TypeAAAA, "CNAME": dnsmessage.TypeCNAME,
	"MX": dnsmessage.TypeMX, "NS": dnsmessage.TypeNS, "PTR": dnsmessage.TypePTR, "SOA": dnsmessage.TypeSOA,
	"SRV": dnsmessage.TypeSRV, "TXT": dnsmessage.TypeTXT,
}

// tryDNS asks one question by UDP (RFC 1035). A server is well when it answers this question without an error code and with at
// least one record; a truncated answer is an answer.
func tryDNS(ctx context.Context, c policy.Check) error {
	id := uint16(rand.Uint32())
	query, err := dnsQuery(id, c.Name, c.Type)
	if err != nil {
		return err
	}
	conn, done, err := open(ctx, "udp", c)
	if err != nil {
		return err
	}
	defer done()
	if _, err := conn.Write(query); err != nil {
		return short(err)
	}
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return short(err)
		}
		// An answer to another question, late or forged, does not end the wait for ours.
		if answer := buf[:n]; n >= 2 && binary.BigEndian.Uint16(answer) == id {
			return dnsVerdict(answer, query)
		}
	}
}

func dnsQuery(id uint16, name, kind string) ([]byte, error) {
	if name == "" || name[len(name)-1] != '.' {
		name += "."
	}
	n, err := dnsmessage.NewName(name)
	if err != nil {
		return nil, fmt.Errorf("name %q: %w", name, err)
	}
	t, ok := dnsTypes[kind]
	if !ok {
		return nil, fmt.Errorf("unknown record type %q", kind)
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: n, Type: t, Class: dnsmessage.ClassINET}},
	}
	return m.Pack()
}

// dnsVerdict judges an answer to query.
func dnsVerdict(answer, query []byte) error {
	var p dnsmessage.Parser
	h, err := p.Start(answer)
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if !h.Response {
		return errors.New("read answer: it is a question")
	}
	if h.RCode != dnsmessage.RCodeSuccess {
		return fmt.Errorf("answer %s", h.RCode)
	}
	got, err := p.Question()
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	var asked dnsmessage.Parser
	if _, err := asked.Start(query); err != nil {
		return err
	}
	if q, err := asked.Question(); err != nil || got.Type != q.Type || !sameName(got.Name, q.Name) {
		return errors.New("answer to another question")
	}
	if err := p.SkipAllQuestions(); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if _, err := p.AnswerHeader(); errors.Is(err, dnsmessage.ErrSectionDone) {
		if h.Truncated {
			return nil
		}
		return errors.New("answer without a record")
	} else if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}

// sameName compares as RFC 1035 section 2.3.3 wants it: ASCII letters without case.
func sameName(a, b dnsmessage.Name) bool {
	if a.Length != b.Length {
		return false
	}
	for i := range int(a.Length) {
		if lower(a.Data[i]) != lower(b.Data[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
