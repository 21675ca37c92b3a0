import Base
import Foundation

/// One setting of `serve`: as a flag, as an `ETCD_` variable and as a key of `--config-file`. The rows of `ServeFlags` are all there are; reading,
/// checking and the help go by them alone.
struct ServeFlag: Sendable {
    enum Form: Sendable {
        case text
        /// Paths, names or addresses with commas between.
        case list
        case urls
        /// Go's booleans; without a value it says true.
        case truth
        case number(ClosedRange<Int>)
        /// Go's durations from this one on; in a file a plain number counts nanoseconds, as it does for etcd.
        case time(atLeast: TimeSpan)
        case choice([String])
    }

    /// What becomes of it here.
    enum Standing: Sendable {
        case works
        /// Understood, checked, and told in the log to do nothing.
        case idle(because: String)
        /// It asks for something that is not here and that nobody should believe to have: only these values pass, the ones that do not ask for it.
        case absent(unless: [String], because: String)
    }

    let name: String
    let form: Form
    /// As somebody would write it; what counts when it is not given.
    let standard: String
    let help: String
    let standing: Standing
    /// etcd 3.6 has dropped many an `experimental-`.
    let otherNames: [String]
    /// In no help.
    let isHidden: Bool

    init(_ name: String, _ form: Form, _ standard: String = "", also otherNames: [String] = [], isHidden: Bool = false, _ help: String) {
        self.init(name, form, standard, otherNames, isHidden, help, .works)
    }

    static func idle(_ name: String, _ form: Form, _ standard: String = "", also otherNames: [String] = [], _ reason: String) -> ServeFlag {
        ServeFlag(name, form, standard, otherNames, false, "", .idle(because: reason))
    }

    static func absent(_ name: String, _ form: Form, _ standard: String = "", unless harmless: [String] = [], _ reason: String) -> ServeFlag {
        ServeFlag(name, form, standard, [], false, "", .absent(unless: harmless, because: reason))
    }

    private init(_ name: String, _ form: Form, _ standard: String, _ otherNames: [String], _ isHidden: Bool, _ help: String, _ standing: Standing) {
        self.name = name
        self.form = form
        self.standard = standard
        self.otherNames = otherNames
        self.isHidden = isHidden
        self.help = help
        self.standing = standing
    }

    static func variable(_ name: String) -> String { "ETCD_" + name.uppercased().replacingOccurrences(of: "-", with: "_") }

    var isTruth: Bool { if case .truth = form { true } else { false } }
    var isTime: Bool { if case .time = form { true } else { false } }
    var mayBeEmpty: Bool {
        switch form {
        case .text, .list, .urls: true
        case .truth, .number, .time, .choice: false
        }
    }

    /// What is wrong with a value that is not empty; nil: nothing. URLs are left to who makes something of them.
    func objection(to text: String) -> String? {
        switch form {
        case .text, .list, .urls: return nil
        case .truth: return ServeFlag.truth(text) == nil ? "expected true or false" : nil
        case .choice(let choices): return choices.contains(text) ? nil : "expected \(ServeFlag.spoken(choices))"
        case .time(let least):
            guard let span = TimeSpan(goDuration: text) else { return "expected a time such as 300ms, 5s or 1h" }
            return span < least ? "expected at least \(least.milliseconds)ms" : nil
        case .number(let range):
            if let number = Int(text), range.contains(number) { return nil }
            if range.lowerBound == .min { return "expected a number" }
            return range.upperBound == .max ? "expected a number of at least \(range.lowerBound)" : "expected a number from \(range.lowerBound) to \(range.upperBound)"
        }
    }

    static func truth(_ text: String) -> Bool? {
        switch text {
        case "true", "1", "t", "T", "TRUE", "True": true
        case "false", "0", "f", "F", "FALSE", "False": false
        default: nil
        }
    }

    private static func spoken(_ words: [String]) -> String {
        words.count < 2 ? words.joined() : words.dropLast().joined(separator: ", ") + " or " + words[words.count - 1]
    }
}

/// Flags that belong together, under one heading of the help.
struct ServeFlagGroup: Sendable {
    let title: String
    let flags: [ServeFlag]
}

/// The whole table, in the order of the help.
enum ServeFlags {
    static let groups: [ServeFlagGroup] = [member, limits, cluster, security, auth, http, monitoring, logging, tracing, old, experimental, unsafe, own]

    /// By every name that a row has.
    static let byName: [String: ServeFlag] = {
        var found: [String: ServeFlag] = [:]
        for flag in groups.flatMap(\.flags) {
            for name in [flag.name] + flag.otherNames {
                let before = found.updateValue(flag, forKey: name)
                precondition(before == nil, "two rows are called \(name)")
            }
        }
        return found
    }()

    static let byVariable: [String: ServeFlag] = Dictionary(uniqueKeysWithValues: byName.map { (ServeFlag.variable($0), $1) })

    /// - Precondition: there is one.
    static func flag(_ name: String) -> ServeFlag {
        guard let flag = byName[name] else { preconditionFailure("no row of ServeFlags is called \(name)") }
        return flag
    }
}
