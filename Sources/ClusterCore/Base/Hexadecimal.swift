/// Reads hexadecimal digits and nothing else. The standard library's `Int(_:radix:)` takes a sign as well, which no format here knows.
public enum Hexadecimal {
    /// The number that the digits of ASCII `text`, either case, are; nil for none, for more than 16, and for anything that is no digit.
    public static func number(_ text: some Collection<UInt8>) -> UInt64? {
        var number: UInt64 = 0
        var count = 0
        for byte in text {
            guard let digit = digit(byte), count < 16 else { return nil }
            number = number << 4 | UInt64(digit)
            count += 1
        }
        return count == 0 ? nil : number
    }

    public static func digit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}
