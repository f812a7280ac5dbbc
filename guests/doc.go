// Package guests owns a guest's life on its blade: clone, define, start, stop, destroy. It observes what the drivers find,
// plans without touching anything, and applies. It never touches a guest that it did not make, never restarts a running one
// by itself, and knows nothing of links, rules or what runs inside.
package guests
