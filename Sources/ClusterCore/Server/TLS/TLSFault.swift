import NIOCore
import NIOSSL

/// Why a TLS connection did not come about, for people.
struct TLSFault: Error, CustomStringConvertible {
    var description: String

    init(_ description: String) { self.description = description }

    /// - Parameter accepting: we are the server.
    init(_ error: any Error, side: TLSSide, accepting: Bool) {
        description = TLSFault.explain(TLSFault.text(of: error), side, accepting) ?? "TLS handshake failed: \(TLSFault.text(of: error))"
    }

    /// What a dialled peer's error means, if it is one of TLS.
    static func ofPeer(_ error: any Error) -> any Error {
        switch error {
        case is NIOSSLError, is BoringSSLError, is NIOSSLExtraError: TLSFault(error, side: .peer, accepting: false)
        default: error
        }
    }

    /// What can be said of the causes that people meet.
    private static func explain(_ text: String, _ side: TLSSide, _ accepting: Bool) -> String? {
        let other = accepting ? (side == .peer ? "the peer" : "the client") : "the server"
        func has(_ part: String) -> Bool { text.contains(part) }
        return if has("PEER_DID_NOT_RETURN_A_CERTIFICATE") {
            "\(other) showed no certificate, which \(side.flag("client-cert-auth")) or \(side.flag("trusted-ca-file")) demands"
        } else if has("CERTIFICATE_VERIFY_FAILED") {
            "\(other)'s certificate cannot be verified: it is not from the authorities in \(side.flag("trusted-ca-file")), has run out, is revoked, or is not meant for this use"
        } else if has("ALERT_UNKNOWN_CA") || has("ALERT_BAD_CERTIFICATE") || has("ALERT_CERTIFICATE_UNKNOWN") {
            "\(other) does not accept our certificate (\(side.flag(accepting ? "cert-file" : "client-cert-file"))): it does not trust its authority, or the name in it"
        } else if has("ALERT_CERTIFICATE_REQUIRED") || has("ALERT_HANDSHAKE_FAILURE") && !accepting {
            "\(other) wants a certificate of ours and got none that it accepts: give \(side.flag("cert-file")) and \(side.flag("key-file"))"
        } else if has("ALERT_CERTIFICATE_EXPIRED") {
            "\(other) says that our certificate has run out"
        } else if has("ALERT_CERTIFICATE_REVOKED") {
            "\(other) says that our certificate was revoked"
        } else if has("NO_SHARED_CIPHER") {
            "\(other) offers no cipher suite that --cipher-suites and the certificate's key allow"
        } else if has("UNSUPPORTED_PROTOCOL") || has("ALERT_PROTOCOL_VERSION") {
            "\(other) offers no TLS version that --tls-min-version and --tls-max-version allow"
        } else if has("WRONG_VERSION_NUMBER") || has("HTTP_REQUEST") {
            "\(other) does not speak TLS"
        } else if has("EOF during handshake") {
            "\(other) closed the connection during the TLS handshake" + (accepting ? "" : ": it may not speak TLS (http:// instead of https://)")
        } else if has("failedToValidateHostname") || has("unableToValidateCertificate") {
            "\(other)'s certificate is for other hosts than the one in its URL"
        } else {
            nil
        }
    }

    /// The library's words without places in its source.
    static func text(of error: any Error) -> String {
        func words(_ stack: NIOBoringSSLErrorStack) -> String {
            stack.map { entry in
                let text = entry.description
                guard let start = text.range(of: "OPENSSL_internal:") else { return text.hasPrefix("Error:  ") ? String(text.dropFirst(8)) : text }
                return String(text[start.upperBound...].prefix { $0 != " " })
            }.joined(separator: ", ")
        }
        func words(_ error: BoringSSLError) -> String {
            switch error {
            case .sslError(let stack), .unknownError(let stack), .invalidSNIName(let stack), .failedToSetALPN(let stack): words(stack)
            default: "\(error)"
            }
        }
        switch error {
        case NIOSSLError.handshakeFailed(let cause), NIOSSLError.shutdownFailed(let cause): return words(cause)
        case let error as BoringSSLError: return words(error)
        case let error as NIOSSLExtraError: return error == .failedToValidateHostname ? "failedToValidateHostname" : "\(error)"
        default: return "\(error)"
        }
    }
}
