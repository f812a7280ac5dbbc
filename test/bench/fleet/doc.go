// Package fleet generates policies of a given size and derives the blade that benchmarks load: what they measure is the
// product's own ruleset, never one made by hand.
package fleet
