//go:build !race

package yaml

import "time"

// limit is how long any text may take.
const limit = time.Second

// shrink divides the sizes of hostile texts.
const shrink = 1
