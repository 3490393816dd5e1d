// Command thirdparty prints the third-party protos that api/ imports
// (google/api, google/rpc, buf/validate) as .proto source.
//
// The source is the descriptors inside the Go modules that tools/go.mod pins,
// so generating code needs no schema registry and cannot drift from what the
// binary links. Usage: thirdparty OUTPUT_DIRECTORY.
package main

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	_ "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"github.com/jhump/protoreflect/v2/protoprint"
	_ "google.golang.org/genproto/googleapis/api/annotations"
	_ "google.golang.org/genproto/googleapis/api/httpbody"
	_ "google.golang.org/genproto/googleapis/rpc/errdetails"
	_ "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// roots are the files that our own protos import; their own imports follow.
var roots = []string{
	"buf/validate/validate.proto",
	"google/api/annotations.proto",
	"google/api/http.proto",
	"google/api/httpbody.proto",
	"google/rpc/error_details.proto",
	"google/rpc/status.proto",
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("thirdparty: ")
	if len(os.Args) != 2 {
		log.Fatal("usage: thirdparty OUTPUT_DIRECTORY")
	}
	printed := map[string]bool{}
	for _, root := range roots {
		file, err := protoregistry.GlobalFiles.FindFileByPath(root)
		if err != nil {
			log.Fatalf("find %s: %v", root, err)
		}
		if err := write(os.Args[1], file, printed); err != nil {
			log.Fatal(err)
		}
	}
}

// write prints file and everything it imports, except the well-known types
// that every protobuf compiler brings itself.
func write(dir string, file protoreflect.FileDescriptor, printed map[string]bool) error {
	if printed[file.Path()] || strings.HasPrefix(file.Path(), "google/protobuf/") {
		return nil
	}
	printed[file.Path()] = true
	imports := file.Imports()
	for i := range imports.Len() {
		if err := write(dir, imports.Get(i).FileDescriptor, printed); err != nil {
			return err
		}
	}
	source, err := (&protoprint.Printer{}).PrintProtoToString(file)
	if err != nil {
		return fmt.Errorf("print %s: %w", file.Path(), err)
	}
	path := filepath.Join(dir, filepath.FromSlash(file.Path()))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(source), 0o644)
}
