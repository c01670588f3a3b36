// panva's oidc-provider (certified by the OpenID Foundation), as plain as it goes: one client, one resource.
// `node oidc_provider.mjs '{"port": ..., "issuer": ..., "jwks": {"keys": [...]}}'`; says "up" when it listens.
import Provider from "oidc-provider";

const { port, issuer, jwks } = JSON.parse(process.argv[2]);
const provider = new Provider(issuer, {
  jwks,
  clients: [
    {
      client_id: "the-shop",
      client_secret: "its-secret",
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
    },
  ],
  scopes: ["model:m", "model:other"],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: () => ({
        scope: "model:m model:other",
        audience: "rehone",
        accessTokenFormat: "jwt",
        accessTokenTTL: 600,
        jwt: { sign: { alg: "RS256" } },
      }),
    },
  },
});
provider.listen(port, "127.0.0.1", () => console.log("up"));
