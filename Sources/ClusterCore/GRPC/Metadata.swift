import Base

/// What the headers of a request say, as far as an etcd server looks at them.
///
/// Byte arrays are shared between the requests of a connection as long as the client repeats the same value, so keeping
/// one costs a reference.
public struct RequestHead: Sendable {
    /// Number in the `MethodTable`.
    public var method: UInt16 = 0
    /// `hasleader: true`: fail at once when the member knows no leader.
    public var requiresLeader = false
    /// `grpcgateway-accept` is present: forwarded by the JSON gateway.
    public var isFromGateway = false
    /// From `grpc-timeout`: how long the client waits, counted from the arrival of the headers. nil: no limit.
    public var timeout: TimeSpan?
    /// `token`, else empty.
    public var token: [UInt8] = []
    /// `authorization` as sent, else empty.
    public var authorization: [UInt8] = []
    /// `client-api-version`, else empty.
    public var clientAPIVersion: [UInt8] = []

    public init() {}
}

/// Parses and writes `grpc-timeout`: at most eight digits and a unit. (gRPC over HTTP/2, "Timeout")
public enum TimeoutHeader {
    public static func parse(_ text: UnsafeRawBufferPointer) -> TimeSpan? {
        guard text.count >= 2, text.count <= 9, let unit = text.last else { return nil }
        var digits: Int64 = 0
        for byte in text.dropLast() {
            guard byte >= 0x30, byte <= 0x39 else { return nil }
            digits = digits * 10 + Int64(byte - 0x30)
        }
        let nanoseconds: Int64
        switch unit {
        case UInt8(ascii: "n"): nanoseconds = 1
        case UInt8(ascii: "u"): nanoseconds = 1_000
        case UInt8(ascii: "m"): nanoseconds = 1_000_000
        case UInt8(ascii: "S"): nanoseconds = 1_000_000_000
        case UInt8(ascii: "M"): nanoseconds = 60_000_000_000
        case UInt8(ascii: "H"): nanoseconds = 3_600_000_000_000
        default: return nil
        }
        let (product, overflow) = digits.multipliedReportingOverflow(by: nanoseconds)
        return TimeSpan(nanoseconds: overflow ? .max : product)
    }

    /// The finest unit that fits into eight digits, rounded up.
    public static func format(_ span: TimeSpan) -> [UInt8] {
        let n = max(span.nanoseconds, 0)
        let units: [(Int64, UInt8)] = [
            (1, UInt8(ascii: "n")), (1_000, UInt8(ascii: "u")), (1_000_000, UInt8(ascii: "m")),
            (1_000_000_000, UInt8(ascii: "S")), (60_000_000_000, UInt8(ascii: "M")),
        ]
        for (size, letter) in units {
            let count = n / size + (n % size == 0 ? 0 : 1)
            if count < 100_000_000 { return Array(String(count).utf8) + [letter] }
        }
        return Array(String(min(n / 3_600_000_000_000 + 1, 99_999_999)).utf8) + [UInt8(ascii: "H")]
    }
}

/// The percent encoding of `grpc-message`: printable ASCII other than '%' stays, every other byte becomes %XX.
public enum StatusMessage {
    public static func encode(_ text: String) -> [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(text.utf8.count)
        for byte in text.utf8 {
            if byte >= 0x20, byte <= 0x7e, byte != UInt8(ascii: "%") {
                out.append(byte)
            } else {
                out.append(UInt8(ascii: "%"))
                out.append(hexDigit(byte >> 4))
                out.append(hexDigit(byte & 15))
            }
        }
        return out
    }

    /// Never fails: a '%' that does not begin a valid escape stays as it is.
    public static func decode(_ bytes: UnsafeRawBufferPointer) -> String {
        var out: [UInt8] = []
        out.reserveCapacity(bytes.count)
        var index = 0
        while index < bytes.count {
            if bytes[index] == UInt8(ascii: "%"), index + 2 < bytes.count,
               let high = hexValue(bytes[index + 1]), let low = hexValue(bytes[index + 2]) {
                out.append(high << 4 | low)
                index += 3
            } else {
                out.append(bytes[index])
                index += 1
            }
        }
        return String(decoding: out, as: UTF8.self)
    }

    private static func hexDigit(_ value: UInt8) -> UInt8 { value < 10 ? 0x30 + value : 0x41 + value - 10 }
    private static func hexValue(_ digit: UInt8) -> UInt8? {
        switch digit {
        case 0x30...0x39: digit - 0x30
        case 0x41...0x46: digit - 0x41 + 10
        case 0x61...0x66: digit - 0x61 + 10
        default: nil
        }
    }
}
