// Package openapi pins the generators of clients that a test of cmd/headgate runs on the gateway's
// OpenAPI document, and the packages that generated clients import. It is a separate module, so
// that their dependencies are neither the product's nor those of the other tools. testdata has
// programs that call the gateway by the generated clients.
package openapi

import (
	_ "github.com/go-faster/errors"
	_ "github.com/go-faster/jx"
	_ "github.com/oapi-codegen/runtime"
	_ "github.com/ogen-go/ogen/conv"
	_ "github.com/ogen-go/ogen/http"
	_ "github.com/ogen-go/ogen/json"
	_ "github.com/ogen-go/ogen/ogenerrors"
	_ "github.com/ogen-go/ogen/ogenregex"
	_ "github.com/ogen-go/ogen/sse"
	_ "github.com/ogen-go/ogen/uri"
	_ "github.com/ogen-go/ogen/validate"
)
