package deploy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// manifests are the objects of deploy/kubernetes.
type manifests struct {
	pods      map[string]corev1.PodTemplateSpec // by the name of the workload
	services  []*corev1.Service
	policies  []*networkingv1.NetworkPolicy
	budgets   []*policyv1.PodDisruptionBudget
	configs   map[string]*corev1.ConfigMap
	templates map[string][]string // names of volumes that a workload claims
}

// build runs kustomize and decodes its output strictly: an unknown field is an error.
func build(t *testing.T) manifests {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(),
		"../../deploy/kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	m := manifests{
		pods:      map[string]corev1.PodTemplateSpec{},
		configs:   map[string]*corev1.ConfigMap{},
		templates: map[string][]string{},
	}
	for _, resource := range built.Resources() {
		text, err := resource.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		object, kind, err := decoder.Decode(text, nil, nil)
		if err != nil {
			t.Errorf("%s: %v", resource.CurId(), err)
			continue
		}
		if meta, ok := object.(metav1.Object); !ok || kind.Kind != "Namespace" && meta.GetNamespace() != "headgate" {
			t.Errorf("%s is outside the namespace", resource.CurId())
		}
		switch o := object.(type) {
		case *appsv1.StatefulSet:
			m.pods[o.Name] = o.Spec.Template
			if !matches(t, o.Spec.Selector, o.Spec.Template.Labels) {
				t.Errorf("%s does not select its own pods", o.Name)
			}
			for _, claim := range o.Spec.VolumeClaimTemplates {
				m.templates[o.Name] = append(m.templates[o.Name], claim.Name)
			}
		case *batchv1.Job:
			m.pods[o.Name] = o.Spec.Template
		case *corev1.Service:
			m.services = append(m.services, o)
		case *networkingv1.NetworkPolicy:
			m.policies = append(m.policies, o)
		case *policyv1.PodDisruptionBudget:
			m.budgets = append(m.budgets, o)
		case *corev1.ConfigMap:
			m.configs[o.Name] = o
		case *corev1.Namespace:
			if o.Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
				t.Error("the namespace does not enforce restricted pods")
			}
		default:
			t.Errorf("%s: objects of the kind %s are not tested", resource.CurId(), kind.Kind)
		}
	}
	return m
}

func matches(t *testing.T, selector *metav1.LabelSelector, of map[string]string) bool {
	t.Helper()
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Matches(labels.Set(of))
}

// ports returns the named ports of a pod.
func ports(pod corev1.PodTemplateSpec) map[string]int32 {
	found := map[string]int32{}
	for _, c := range pod.Spec.Containers {
		for _, port := range c.Ports {
			found[port.Name] = port.ContainerPort
		}
	}
	return found
}

// Pods meet the restricted Pod Security Standard, have read-only root file systems and limits of memory:
// https://kubernetes.io/docs/concepts/security/pod-security-standards/
func TestKubernetes_PodsAreConfined(t *testing.T) {
	m := build(t)
	for _, role := range append([]string{"nats", "postgres", "nats-setup"}, roles...) {
		if _, ok := m.pods[role]; !ok {
			t.Errorf("there is no workload %s", role)
		}
	}
	for name, pod := range m.pods {
		spec := pod.Spec
		if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
			t.Errorf("%s mounts a service-account token", name)
		}
		if spec.HostNetwork || spec.HostPID || spec.HostIPC {
			t.Errorf("%s shares the host's namespaces", name)
		}
		s := spec.SecurityContext
		if s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.RunAsUser == nil || *s.RunAsUser == 0 ||
			s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s runs as root or without seccomp: %+v", name, s)
		}
		for _, c := range append(slices.Clone(spec.InitContainers), spec.Containers...) {
			s := c.SecurityContext
			if s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
				s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
				s.Capabilities == nil || !slices.Equal(
				s.Capabilities.Drop, []corev1.Capability{"ALL"},
			) || len(s.Capabilities.Add) > 0 {
				t.Errorf("%s/%s has capabilities, may gain privileges, or has a writable root file system: %+v", name,
					c.Name, s)
			}
			if c.Resources.Limits.Memory().IsZero() {
				t.Errorf("%s/%s has no memory limit", name, c.Name)
			}
			if strings.Contains(c.Image, "headgate") {
				if strings.HasSuffix(c.Image, ":latest") || !strings.Contains(c.Image, ":") {
					t.Errorf("%s/%s runs %s, want a released image", name, c.Name, c.Image)
				}
			} else {
				pinned(t, name+"/"+c.Name, c.Image)
			}
		}
	}
}

// A pod refers only to existing volumes, configurations and ports, and mounts only the secrets of its role.
func TestKubernetes_PodsMountTheSecretsOfTheirRoleAlone(t *testing.T) {
	m := build(t)
	may := map[string][]string{
		"gateway": {"gateway"}, "runner": {"runner"}, "projection": {"views"}, "nats": {"nats"},
		"postgres": {"postgres"},
	}
	for _, role := range append(slices.Clone(roles), "nats-setup") {
		may[role] = append(may[role], "nats-"+strings.TrimPrefix(role, "nats-"))
	}
	for role := range m.pods {
		may[role] = append(may[role], "tls-"+role)
	}
	for name, pod := range m.pods {
		volumes := slices.Clone(m.templates[name])
		secrets := map[string]bool{}
		for _, volume := range pod.Spec.Volumes {
			volumes = append(volumes, volume.Name)
			if volume.Secret != nil {
				secrets[volume.Secret.SecretName] = true
				if mode := volume.Secret.DefaultMode; mode == nil || *mode&0o007 != 0 {
					t.Errorf("%s: every user in the pod may read %s", name, volume.Secret.SecretName)
				}
			}
			if volume.ConfigMap != nil && m.configs[volume.ConfigMap.Name] == nil {
				t.Errorf("%s mounts %s, which does not exist", name, volume.ConfigMap.Name)
			}
			if volume.HostPath != nil {
				t.Errorf("%s mounts a host path", name)
			}
		}
		named := ports(pod)
		for _, c := range pod.Spec.Containers {
			for _, mount := range c.VolumeMounts {
				if !slices.Contains(volumes, mount.Name) {
					t.Errorf("%s mounts %s, which does not exist", name, mount.Name)
				}
			}
			for _, env := range c.Env {
				if env.ValueFrom != nil && env.ValueFrom.SecretKeyRef != nil {
					secrets[env.ValueFrom.SecretKeyRef.Name] = true
				}
			}
			for _, probe := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
				if probe != nil && probe.HTTPGet != nil && named[probe.HTTPGet.Port.StrVal] == 0 {
					t.Errorf("%s: a probe names the port %s, which does not exist", name, probe.HTTPGet.Port.String())
				}
			}
		}
		if got, want := slices.Sorted(
			maps.Keys(secrets),
		), slices.Sorted(slices.Values(may[name])); !slices.Equal(got, want) {
			t.Errorf("%s reads the secrets %v, want %v", name, got, want)
		}
	}
}

// Services and disruption budgets select existing pods and their ports.
func TestKubernetes_ServicesReachPods(t *testing.T) {
	m := build(t)
	for _, service := range m.services {
		found := false
		for _, pod := range m.pods {
			if !labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(pod.Labels)) {
				continue
			}
			found = true
			named := ports(pod)
			for _, port := range service.Spec.Ports {
				if target := port.TargetPort.StrVal; target != "" && named[target] == 0 ||
					target == "" && !slices.Contains(slices.Collect(maps.Values(named)), port.Port) {
					t.Errorf("the service %s names the port %s, which its pods do not have", service.Name, port.Name)
				}
			}
		}
		if !found {
			t.Errorf("the service %s selects no pods", service.Name)
		}
	}
	for _, budget := range m.budgets {
		if !slices.ContainsFunc(
			slices.Collect(maps.Values(m.pods)),
			func(pod corev1.PodTemplateSpec) bool { return matches(t, budget.Spec.Selector, pod.Labels) },
		) {
			t.Errorf("the budget %s selects no pods", budget.Name)
		}
	}
}

// admitted returns which pods may connect to which named ports of other pods, as "SOURCE TARGET PORT"; "*" is any
// source.
func (m manifests) admitted(t *testing.T) map[string]bool {
	t.Helper()
	routes := map[string]bool{}
	for to, pod := range m.pods {
		named := ports(pod)
		for _, policy := range m.policies {
			if !matches(t, &policy.Spec.PodSelector, pod.Labels) ||
				!slices.Contains(policy.Spec.PolicyTypes, networkingv1.PolicyTypeIngress) {
				continue
			}
			for _, rule := range policy.Spec.Ingress {
				for _, port := range rule.Ports {
					name := port.Port.StrVal
					for known, number := range named {
						if name == "" && number == port.Port.IntVal {
							name = known
						}
					}
					if named[name] == 0 {
						if policy.Name != "nodes" { // its ports are those of all nodes
							t.Errorf("the policy %s names the port %s, which %s does not have", policy.Name,
								port.Port.String(), to)
						}
						continue
					}
					if len(rule.From) == 0 {
						routes["* "+to+" "+name] = true
					}
					for _, peer := range rule.From {
						if peer.NamespaceSelector != nil {
							routes[fmt.Sprintf("namespace:%s %s %s",
								peer.NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"], to, name)] = true
							continue
						}
						for from, source := range m.pods {
							if peer.PodSelector != nil && matches(t, peer.PodSelector, source.Labels) {
								routes[from+" "+to+" "+name] = true
							}
						}
					}
				}
			}
		}
	}
	return routes
}

// Only the pods that need a port may connect to it; monitoring may connect to ports of metrics only.
func TestKubernetes_PoliciesAdmitWhatRolesNeed(t *testing.T) {
	m := build(t)
	want := map[string]bool{
		"* gateway rpc": true, "* gateway grpc": true, "namespace:monitoring gateway admin": true,
		"nats nats cluster": true, "namespace:monitoring nats monitor": true, "nats-setup nats client": true,
		"projection postgres postgres": true,
	}
	for _, role := range roles {
		want[role+" nats client"] = true
		if role == "gateway" {
			continue
		}
		want["namespace:monitoring "+role+" metrics"] = true
		for _, caller := range []string{"gateway", "control"} {
			want[caller+" "+role+" rpc"], want[caller+" "+role+" grpc"] = true, true
		}
	}
	got := m.admitted(t)
	for route := range got {
		if !want[route] {
			t.Errorf("unexpectedly admitted: %s", route)
		}
	}
	for route := range want {
		if !got[route] {
			t.Errorf("not admitted: %s", route)
		}
	}
	for name, pod := range m.pods {
		for _, direction := range []networkingv1.PolicyType{
			networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress,
		} {
			if !slices.ContainsFunc(m.policies, func(p *networkingv1.NetworkPolicy) bool {
				return matches(t, &p.Spec.PodSelector, pod.Labels) && slices.Contains(p.Spec.PolicyTypes, direction)
			}) {
				t.Errorf("%s has no %s policy", name, direction)
			}
		}
	}
	// Outside the namespace, pods may connect to public addresses at port 443, and to DNS.
	for _, policy := range m.policies {
		for _, rule := range policy.Spec.Egress {
			for _, peer := range rule.To {
				if peer.IPBlock != nil &&
					(len(rule.Ports) != 1 || rule.Ports[0].Port.IntVal != 443 ||
						!slices.Contains(peer.IPBlock.Except, "169.254.0.0/16")) {
					t.Errorf("%s admits connections to %+v", policy.Name, rule)
				}
			}
			if len(rule.To) == 0 || len(rule.Ports) == 0 {
				t.Errorf("%s admits connections to any address: %+v", policy.Name, rule)
			}
		}
	}
}
