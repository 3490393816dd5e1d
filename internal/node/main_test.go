package node

import (
	"testing"

	"github.com/headgate/headgate/backbone/backbonetest"
)

func TestMain(m *testing.M) { backbonetest.Main(m) }
