//go:build !race

package policy

import "time"

// longestLoad is how long any text may take.
const longestLoad = time.Second

// shrink divides the sizes of hostile texts.
const shrink = 1
