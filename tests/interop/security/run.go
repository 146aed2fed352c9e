// Package security shows: TLS, mutual TLS, tokens with roles, and a Unix socket: the right caller is answered, any
// other is report why.
package security

import (
	"context"
	"os"
	"time"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run runs the behaviour and returns its report.
func Run(task *interop.Task) any {
	input := interop.Read[struct {
		Prompt     abstractllm.String
		Timeout    float64
		WrongToken string `json:"wrong_token"`
	}](task)
	ctx := context.Background()
	file := func(name string) []byte { return interop.Must(os.ReadFile(task.Servers[name])) }
	limit := abstractllm.WithDefaults(abstractllm.WithTimeout(time.Duration(input.Timeout * float64(time.Second))))
	roots := abstractllm.WithRootCertificates(file("root_certificates"))
	others := abstractllm.WithRootCertificates(file("other_root_certificates"))
	certificate := abstractllm.WithClientCertificate(file("client_certificate"), file("client_key"))
	user := abstractllm.WithToken(task.Servers["user_token"])
	admin := abstractllm.WithToken(task.Servers["admin_token"])

	ask := func(server string, options ...abstractllm.Option) any {
		llm := task.ConnectTo(server, append(options, limit)...)
		defer llm.Close()
		text, err := llm.Generate(ctx, input.Prompt)
		if err != nil {
			return interop.Brief(err)
		}
		return text
	}
	configure := func(server string, option abstractllm.Option) any {
		llm := task.ConnectTo(server, roots, option, limit)
		defer llm.Close()
		if _, _, err := llm.GetConfig(ctx); err != nil {
			return interop.Brief(err)
		}
		return true
	}
	return map[string]any{
		"tls":                 ask("tls", roots),
		"mtls":                ask("mtls", roots, certificate),
		"token":               ask("tokens", roots, user),
		"admin":               configure("tokens", admin),
		"unix":                ask("unix"),
		"distrusted":          ask("tls", others),
		"without_certificate": ask("mtls", roots),
		"no_token":            ask("tokens", roots),
		"wrong_token":         ask("tokens", roots, abstractllm.WithToken(input.WrongToken)),
		"role":                configure("tokens", user),
		"certificate_role":    configure("mtls", certificate),
	}
}
