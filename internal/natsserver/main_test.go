package natsserver_test

import (
	"testing"

	"github.com/headgate/headgate/internal/natstest"
)

func TestMain(m *testing.M) { natstest.Main(m) }
