package hostagent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
)

// Dismantle takes everything down that a blade has of ours, as if no policy named any of it: guests, links, network namespaces. The
// filter's tables stay, without a port in them. It is for a host that is a blade no more; Run must not be running.
func (a *Agent) Dismantle(ctx context.Context) error {
	a.passing.Lock()
	defer a.passing.Unlock()
	a.life = ctx
	a.record(api.Entry{Kind: api.Agent, Message: "the blade is dismantled"})
	out := a.walk(ctx, &pass{blade: policy.Blade{Name: a.cfg.Blade}, apply: true})
	return errors.Join(out.err, removeEmpty(filepath.Dir(policy.NamespacePath("any"))), a.journal.Close())
}

// removeEmpty removes a folder of namespaces, which is a mount of its own, when it is empty now; one that holds somebody else's things
// stays.
func removeEmpty(dir string) error {
	left, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(left) > 0:
		return fmt.Errorf("remove %s: %s is left in it", dir, left[0].Name())
	}
	for unix.Unmount(dir, unix.MNT_DETACH) == nil { // as often as it was mounted; EINVAL ends it
	}
	return os.Remove(dir)
}
