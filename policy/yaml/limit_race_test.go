//go:build race

package yaml

import "time"

// limit is how long any text may take; the race detector makes everything several times slower.
const limit = 10 * time.Second

// shrink divides the sizes of hostile texts: what grows faster than its input shows in the run without the detector.
const shrink = 16
