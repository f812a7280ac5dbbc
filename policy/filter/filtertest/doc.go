// Package filtertest draws packets for tests that compare a ruleset, the kernel and Judge: valid traffic of every kind that a
// blade carries, and the same with a field or two gone wrong. The same seed draws the same packets.
package filtertest
