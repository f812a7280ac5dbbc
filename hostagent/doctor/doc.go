// Package doctor looks at a host as bladenet needs it: kernel, limits, NICs, what else runs there. Each finding has its remedy. It
// changes nothing but what it is asked to fix, and that is only what no other program on the host can mind.
package doctor
