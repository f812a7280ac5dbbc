package hostagent

import (
	"testing"
	"time"
)

// TestASpareOneComesAndGoes walks one through what a director says, each line so many minutes after the one before.
func TestASpareOneComesAndGoes(t *testing.T) {
	nobody, well, short := call{left: -1}, call{heard: true, left: -1}, call{heard: true, short: "www", left: -1}
	counted := func(left int) call { return call{heard: true, left: left} }
	for name, c := range map[string]struct {
		begin spare
		said  []call
		off   string // after each: o off, r runs
	}{
		"rests":                          {spare{off: true}, []call{well, well, nobody}, "ooo"},
		"comes, and goes after a while":  {spare{off: true}, []call{short, well, counted(0), counted(0), counted(0), counted(0), well}, "rrrrroo"},
		"is wanted again meanwhile":      {spare{off: true}, []call{short, well, well, short, well, well, well, well, counted(0)}, "rrrrrrrro"},
		"has connections":                {spare{off: true}, []call{short, well, well, well, well, counted(2), counted(1), well, counted(0)}, "rrrrrrrro"},
		"has them for long":              {spare{off: true}, append([]call{short}, repeat(counted(1), 20)...), "rrrrrrrrrrrrrrrrrrrro"},
		"nobody says anything":           {spare{}, repeat(nobody, 8), "rrrrrrrr"},
		"off, and nobody says anything":  {spare{off: true}, repeat(nobody, 3), "ooo"},
		"silence is no word against it":  {spare{off: true}, []call{short, nobody, nobody, nobody, nobody, nobody, well}, "rrrrrrr"},
		"ran when the agent began":       {spare{}, []call{well, well, well, well, counted(0), counted(0)}, "rrrroo"},
		"is wanted when the agent began": {spare{off: true}, []call{short}, "r"},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(1_000_000, 0)
			s := c.begin
			s.wanted = now
			got := ""
			for _, said := range c.said {
				now = now.Add(time.Minute)
				s = s.next(said, now)
				got += map[bool]string{true: "o", false: "r"}[s.off]
				if s.off && s.calm {
					t.Error("an off one is looked at again and again")
				}
			}
			if got != c.off {
				t.Errorf("%s, want %s", got, c.off)
			}
		})
	}
}

func repeat(c call, n int) []call {
	out := make([]call, n)
	for i := range out {
		out[i] = c
	}
	return out
}
