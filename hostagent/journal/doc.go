// Package journal keeps a bounded record of what the agent did and saw: in memory for readers, on disk over restarts. It never
// waits for a reader, and a disk that takes nothing costs only what would have been on it.
package journal
