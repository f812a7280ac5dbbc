package policy

import (
	"fmt"
	"slices"

	"github.com/bladenet/bladenet/policy/yaml"
)

// Format writes a policy file in canonical style and keeps every comment. A second reading proves that the result says the
// same; where it would not, and where the file does not parse, the error names the place and nothing is returned.
func Format(file File) (File, error) {
	text, errs := yaml.Format(string(file.Data))
	if len(errs) > 0 {
		return File{}, fmt.Errorf("format %s:%d:%d: %s", file.Name, errs[0].Line, errs[0].Col, errs[0].Message)
	}
	if err := sameText(string(file.Data), text); err != nil {
		return File{}, fmt.Errorf("format %s: %w", file.Name, err)
	}
	return File{Name: file.Name, Data: []byte(text)}, nil
}

// sameText compares what two texts say, and their comments.
func sameText(before, after string) error {
	a, _ := yaml.Parse(before, yaml.Options{Comments: true})
	b, errs := yaml.Parse(after, yaml.Options{Comments: true})
	if len(errs) > 0 {
		return fmt.Errorf("line %d of the result does not parse: %s", errs[0].Line, errs[0].Message)
	}
	if !slices.EqualFunc(a.Documents, b.Documents, sameMeaning) {
		return fmt.Errorf("the result would say something else")
	}
	if !slices.EqualFunc(a.Comments, b.Comments, func(x, y yaml.Comment) bool { return x.Text == y.Text }) {
		return fmt.Errorf("the result would lose a comment")
	}
	return nil
}
