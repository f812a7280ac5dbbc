// Package revision keeps numbered, checked sets of policy files on disk, so that a blade comes up as it was. It never judges
// a policy: only checked files are given to it.
package revision
