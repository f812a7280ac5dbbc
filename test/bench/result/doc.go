// Package result holds what a benchmark found: series of samples, the median of their ratios round by round with its
// quartiles, and rows that say whether a target is met. It measures nothing itself.
package result
