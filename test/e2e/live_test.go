//go:build kernel

package e2e

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// explainLiveFollows asks for real packets of a VIP while a user sends one that is answered and one that is dropped, and of a guest; what marks
// packets is gone afterwards, also when the command is killed.
func explainLiveFollows(t *testing.T, _ *blade) {
	follow := exec.CommandContext(t.Context(), "bladectl", "explain", "--live", vip4, "--for", "30s", "--packets", "40")
	var out strings.Builder
	follow.Stdout = &out
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	marked := func(want bool) func() error {
		return func() error {
			if got := strings.Contains(run(t, "nft", "list", "tables"), "bladenet_trace"); got != want {
				return fmt.Errorf("packets are marked: %t", got)
			}
			return nil
		}
	}
	eventually(t, 20*time.Second, "packets are marked", marked(true))
	_ = client(t.Context(), "curl", "-s", "-m", "1", "http://"+vip4+":81/").Run()
	ask(t, vip4, 4)
	if err := follow.Wait(); err != nil {
		t.Errorf("explain --live: %v", err)
	}
	for _, want := range []string{
		`(?m)^drop +vlan111 -> dir-pub-l\.0 .* -> 203\.0\.113\.10:81 tcp syn .*\(vip-port\)`,
		`(?m)^accept +vlan111 -> dir-pub-l\.0 .* -> 203\.0\.113\.10:80 tcp syn  service www  .*\.yaml:\d+:\d+`,
		`(?m)^accept +dir-pub-l\.1 -> www-[12]\.1 .* -> 203\.0\.113\.10:80 tcp syn `,
		`(?m)^accept +www-[12]\.0 -> vlan130 +203\.0\.113\.10:80 -> .* tcp syn,ack `,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("no line matches %s:\n%s", want, out.String())
		}
	}
	eventually(t, 5*time.Second, "nothing is marked", marked(false))

	killed := exec.CommandContext(t.Context(), "bladectl", "explain", "--live", "www-1", "--for", "5m", "--packets", "9999")
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "packets are marked", marked(true))
	_ = killed.Process.Kill()
	_ = killed.Wait()
	eventually(t, 10*time.Second, "nothing is marked after the command was killed", marked(false))
}
