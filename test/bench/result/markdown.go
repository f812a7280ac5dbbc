package result

import (
	"fmt"
	"io"
)

// Markdown writes a report's rows as the table of a page.
func Markdown(w io.Writer, r Report) error {
	_, err := fmt.Fprint(w, "| row | what, against what | ratio | quartiles | target | | ours / peer |\n|---|---|---|---|---|---|---|\n")
	for _, x := range r.Rows {
		if err != nil {
			return err
		}
		x = x.finite()
		target, met := x.verdict()
		if met == missed {
			met = "**" + missed + "**"
		}
		_, err = fmt.Fprintf(w, "| %s | %s | %s | %s–%s | %s | %s | %s / %s %s |\n",
			x.ID, x.against(), short(x.Ratio), short(x.P25), short(x.P75), target, met, short(x.Ours), short(x.Peer), x.Unit)
	}
	return err
}
