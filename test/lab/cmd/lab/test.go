package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bladenet/bladenet/test/lab"
)

// testTags select the tests that need root and a kernel of their own, and a libvirt that is opened at run time.
const testTags = "kernel,libvirt_dlopen"

// runCopy runs a program from the machine's own disk: tests start themselves again, and from the share each start takes seconds.
const runCopy = `copy=$(mktemp -d)/${0##*/} && cp "$0" "$copy" || exit 125
"$copy" "$@"
status=$?
rm -r "${copy%/*}"
exit $status`

// words is a flag that may be given many times.
type words []string

func (w *words) String() string { return strings.Join(*w, " ") }

func (w *words) Set(word string) error { *w = append(*w, word); return nil }

// test builds the kernel tests of packages on the host and runs each package's in the machine, in its source folder.
func test(ctx context.Context, env environment, args []string) error {
	set, name := flags(env, "test")
	only := set.String("run", "", "run tests that match `REGEX` only")
	ready := set.Bool("no-build", false, "take the binaries in build/kerneltests as they are")
	verbose := set.Bool("v", false, "name each test")
	in := set.String("in", "", "where: blade (the first), another blade's name, or machine, which blades share")
	limit := set.Duration("timeout", 10*time.Minute, "how long a package's tests may take")
	var environ words
	set.Var(&environ, "env", "`KEY=VALUE` for the tests; may be given again")
	if err := parse(set, args); err != nil {
		return err
	}
	packages, own := set.Args(), []string(nil)
	if i := slices.Index(packages, "--"); i >= 0 {
		packages, own = packages[:i], packages[i+1:]
	}
	if len(packages) == 0 {
		return fmt.Errorf("test needs packages, as ./bridges: %w", errUsage)
	}
	l, err := lab.Open(*name)
	if err != nil {
		return err
	}
	source, err := l.Source()
	if err != nil {
		return err
	}
	var failed []string
	for _, pkg := range packages {
		pkg = path.Clean(filepath.ToSlash(pkg))
		if !*ready {
			if err := buildTest(ctx, env, source, pkg); err != nil {
				return err
			}
		}
		common := []string{"-test.run=" + *only, fmt.Sprintf("-test.v=%t", *verbose), fmt.Sprintf("-test.timeout=%v", *limit)}
		c := lab.Command{
			Args: slices.Concat([]string{"sh", "-c", runCopy, "/lab/src/" + testBinary(pkg)}, common, own),
			Env:  environ, In: *in, Dir: "/lab/src/" + pkg, Stdout: env.stdout, Stderr: env.stderr,
		}
		start := time.Now()
		code, err := l.Exec(ctx, c)
		result := "ok"
		if err != nil || code != 0 {
			result = fmt.Sprintf("FAIL (status %d)", code)
			failed = append(failed, pkg)
		}
		fmt.Fprintf(env.stderr, "lab: %s %s %.1f s\n", pkg, result, time.Since(start).Seconds())
		if err != nil {
			return fmt.Errorf("test %s: %w", pkg, err)
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(failed, ", "))
	}
	return nil
}

// testBinary is where a package's compiled tests lie in the repository: build/kerneltests/policy_nft.test.
func testBinary(pkg string) string {
	return "build/kerneltests/" + strings.ReplaceAll(pkg, "/", "_") + ".test"
}

func buildTest(ctx context.Context, env environment, source, pkg string) error {
	binary := filepath.Join(source, testBinary(pkg))
	if err := os.Remove(binary); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-tags", testTags, "-o", binary, "./"+pkg)
	cmd.Dir, cmd.Stdout, cmd.Stderr = source, env.stderr, env.stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build tests of %s: %w", pkg, err)
	}
	if _, err := os.Stat(binary); err != nil {
		return fmt.Errorf("build tests of %s: it has none with the tags %s", pkg, testTags)
	}
	return nil
}
