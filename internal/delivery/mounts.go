// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Mounts reports whether a container of the pod mounts the Secret as a volume that the kubelet keeps up to date.
func Mounts(pod *corev1.PodSpec, secret string) bool {
	volumes := Volumes(pod, func(name string) bool { return name == secret })
	if len(volumes) == 0 {
		return false
	}
	return slices.ContainsFunc(Lasting(pod), func(c corev1.Container) bool {
		return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
			return volumes[m.Name] != "" && Follows(m)
		})
	})
}

// Follows reports whether the kubelet keeps a mount up to date with its volume. It never updates a subPath mount.
func Follows(m corev1.VolumeMount) bool { return m.SubPath == "" && m.SubPathExpr == "" }

// Volumes returns the pod's volumes that hold one of the wanted Secrets, as a map from the name of the volume to that of the Secret.
func Volumes(pod *corev1.PodSpec, wanted func(secret string) bool) map[string]string {
	var out map[string]string
	add := func(volume, secret string) {
		if !wanted(secret) {
			return
		}
		if out == nil {
			out = map[string]string{}
		}
		out[volume] = secret
	}
	for i := range pod.Volumes {
		v := &pod.Volumes[i]
		if v.Secret != nil {
			add(v.Name, v.Secret.SecretName)
		}
		if v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			if source.Secret != nil {
				add(v.Name, source.Secret.Name)
			}
		}
	}
	return out
}

// Lasting returns the containers that live as long as the pod, sidecars included. Other init containers end before a token does.
func Lasting(pod *corev1.PodSpec) []corev1.Container {
	out := slices.Clone(pod.Containers)
	for _, c := range pod.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			out = append(out, c)
		}
	}
	return out
}
