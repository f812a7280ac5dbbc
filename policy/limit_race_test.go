//go:build race

package policy

import "time"

// longestLoad is how long any text may take; the race detector makes everything several times slower.
const longestLoad = 10 * time.Second

// shrink divides the sizes of hostile texts: what grows faster than its input shows in the run without the detector.
const shrink = 16
