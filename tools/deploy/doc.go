// Package deploy tests the manifests of deploy/ with the libraries that read them: compose-go for compose,
// kustomize's and the API types of Kubernetes for Kubernetes. It is a separate module, so that their dependencies
// are neither the product's nor those of the other tools.
package deploy
