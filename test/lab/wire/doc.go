// Package wire is what a lab's host and its virtual machine say to each other: one connection per command, frames of a kind,
// a length and a payload. It moves bytes and nothing else.
package wire
