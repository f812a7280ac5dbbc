package policy

// alerts checks that each alert goes to one place and that a login is whole.
func (c *checker) alerts() {
	for i := range c.f.Alerts {
		d := c.f.Alerts[i].doc
		var kinds []at[string]
		if d.Webhook.written() {
			kinds = append(kinds, at[string]{"webhook", d.Webhook.Pos})
		}
		if d.Command.written() {
			kinds = append(kinds, at[string]{"command", d.Command.Pos})
		}
		if d.Mail != nil {
			kinds = append(kinds, at[string]{"mail", d.Mail.Pos})
			c.mail(d.Mail)
		}
		switch {
		case len(kinds) == 0 && d.Keys == 0:
			c.errorf(d.Pos, "one of webhook, command, mail", "alert says nowhere to send it")
		case len(kinds) > 1:
			c.clash(kinds[1].Pos, kinds[0].Pos, kinds[0].V, "write one entry of alerts for each", "alert to two places, %s and %s", kinds[0].V, kinds[1].V)
		}
	}
}

func (c *checker) mail(d *mailDoc) {
	switch {
	case d.To != nil && len(d.To) == 0:
		c.errorf(d.Pos, "to: [ops@example.org]", "mail to nobody")
	case d.User.written() && !d.PasswordFile.written():
		c.errorf(d.User.Pos, "password-file: /etc/bladenet-secrets/mail", "mail with a user and no password")
	case d.PasswordFile.written() && !d.User.written():
		c.errorf(d.PasswordFile.Pos, "user: bladenet", "mail with a password and no user")
	}
}
