package announce

import "time"

// seconds is a duration as FRR's timers take it: whole seconds, at least one.
func seconds(d time.Duration) int { return int(max(d.Round(time.Second), time.Second) / time.Second) }
