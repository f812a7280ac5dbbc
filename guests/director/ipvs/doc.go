// Package ipvs owns the IPVS table of one director's network namespace: the whole of it, for nothing else may balance there.
// It makes the kernel's table equal to a wanted one by the smallest steps, in one canonical order, so that Maglev tables of
// directors with the same policy are the same. It never flushes, and never decides a weight.
//
// A destination leaves by weight 0 and is deleted when its last connection ended, or when it is overdue.
package ipvs
