// Package quota bounds what the files of one project take on a file system that keeps project quotas (ext4, xfs). Whose projects they are is
// its callers' to know; it touches none that it is not told.
package quota
