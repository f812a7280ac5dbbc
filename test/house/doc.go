// Package house holds the rules of the house as tests: who may import whom, where cgo is, what every package says of itself.
// It has no code of its own.
package house
