// Package image owns base images: recipes, the content-addressed store that clones stand on, and how a recipe becomes an
// image. An image never changes once it is in the store. The package does not clone and does not run anything that is not part
// of a build.
package image
