// Package health owns the health checks of one director: one probe for each policy.Check, however many services share it. It
// says what it found and when that changed; what follows from it is for others to decide. It keeps nothing on disk.
//
// The first probe decides at once, so that a real server enters rotation as soon as it is known to be well; after it, Rise
// successes or Fall failures in a row change the state. Probes of one interval are spread over it, and a probe that takes long
// never delays another.
package health
